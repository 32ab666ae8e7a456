//! The object without its debug information, which is four fifths of it and which nobody reads:
//! the verifier's messages take lines from `.BTF.ext`.

use anyhow::{Context, Result};
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;

/// An ELF file without its `.debug_*` sections and what refers to them.
pub(crate) fn without_debug_information(file: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(file).context("failed to read the object")?;
    for section in &mut elf.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    elf.delete_orphans();
    // bpf-linker keeps the names of sections among those of symbols; the writer keeps them apart.
    let apart = |data: &SectionData<'_>| matches!(data, SectionData::SectionString);
    if !elf.sections.iter().any(|section| apart(&section.data)) {
        let names = elf.sections.add();
        names.name = b".shstrtab".as_slice().into();
        names.sh_type = SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    let mut stripped = Vec::new();
    elf.write(&mut stripped)
        .context("failed to write the object")?;
    Ok(stripped)
}
