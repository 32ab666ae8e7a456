use netobs::{bpf::*, probes::*};
use std::path::Path;
fn main() {
    let t = std::time::Instant::now();
    let facts = KernelFacts::read(&BtfSource::Kernel, Path::new("/proc"));
    println!("facts {:?}", t.elapsed());
    println!("{:?}", facts.settings);
    let types = KernelTypes::read().ok();
    println!("types {:?}", t.elapsed());
    let mut object = Object::load(types, &facts.settings, &facts.offset_table()).unwrap();
    let mut maps = object.take_maps().unwrap();
    println!("load {:?}", t.elapsed());
    let st = attach_all(&mut object, &facts, &Selection::default(), &|_| None);
    println!("attach {:?}", t.elapsed());
    for s in &st { println!("{} {} {}", s.probe, s.method, s.attached); for r in &s.reasons { println!("   {} {}", r.method, r.reason); } }
    let it = object.socket_iter().unwrap();
    it.walk_this_namespace().unwrap();
    maps.set_baselined().unwrap();
    let mut lr = object.listener_readings(&maps).unwrap();
    let mut out = vec![];
    for _ in 0..3 { let t = std::time::Instant::now(); lr.read(&mut out).unwrap(); println!("{} listeners {:?}", out.len(), t.elapsed()); }
    for r in &out { println!("{r:?} {}", r.listen_drops()); }
    std::thread::sleep(std::time::Duration::from_secs(std::env::args().nth(1).map_or(0, |a| a.parse().unwrap())));
    let mut closed = vec![]; maps.take_closed_listeners(&mut closed).unwrap();
    println!("closed {closed:?}");
    println!("{:?}", maps.retransmits().unwrap());
    for p in netobs_common::probe::Program::ALL { println!("{} {:?}", p.name(), maps.probe_counts(*p).unwrap()); }
    let mut ring = maps.take_ring().unwrap();
    ring.drain(|b| println!("{:?}", netobs_common::event::Event::decode(b)));
}
