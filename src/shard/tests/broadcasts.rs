//! Broadcasts: killed, cancelled, held.

use super::*;

/// Delivers what the shard sends to clients that acknowledge it, until it is silent. Adds up the payload by port.
fn exchange(shard: &mut Shard<Hold>, clients: &mut [Client], got: &mut [Vec<u8>], now: Time) {
    loop {
        let mut frames = Vec::new();
        shard.transmit(|frame| {
            let Ok(Packet::Tcp(packet)) = parse(frame, &CLIENT_MAC) else { panic!("only TCP is sent here") };
            let index = usize::from(packet.local_port) - 1;
            let client = &mut clients[index];
            if packet.segment.seq == client.ack {
                got[index].extend_from_slice(packet.payload);
                client.ack = client.ack.plus(packet.segment.payload_bytes);
            }
            frames.push(client.frame(Control::ACK, b""));
            true
        });
        if frames.is_empty() {
            return;
        }
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        shard.receive(now, &frames);
    }
}

#[test]
fn a_broadcast_killed_anywhere_reaches_everybody_exactly_once() {
    struct Killed;
    for kill_at in 0..60 {
        let mut shard = shard(Hold);
        let mut clients: Vec<Client> = (1..=300).map(|port| open(&mut shard, port).0).collect();
        let mut got = vec![Vec::new(); clients.len()];
        let bytes: Vec<u8> = (0..3_000u32).map(|i| i as u8).collect();
        let everybody = Broadcast { ticket: Ticket(8), bytes: &bytes, pace_per_s: 0, prefix: b"", expires_in_s: 0 };
        let job = shard.broadcast(Time(0), &everybody).unwrap();
        let mut passes = 0;
        shard.set_interrupt(Some(Box::new(move |_| {
            passes += 1;
            if passes == kill_at {
                std::panic::resume_unwind(Box::new(Killed));
            }
        })));
        let mut now = Time::from_ms(10);
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while shard.job(job).is_some_and(|view| view.state == JobState::Running) {
                shard.tick(now);
                exchange(&mut shard, &mut clients, &mut got, now);
            }
        }));
        if ran.is_err() {
            shard = restarted(shard, Hold, now);
        }
        while shard.stats().actives > 0 || shard.job(job).unwrap().state == JobState::Running {
            now = now.plus_ms(50);
            shard.tick(now);
            exchange(&mut shard, &mut clients, &mut got, now);
        }
        assert!(got.iter().all(|got| *got == bytes), "killed at pass {kill_at}");
        let view = shard.job(job).unwrap();
        assert_eq!((view.pushed, view.delivered, view.refused), (300, 300, 0), "killed at pass {kill_at}");
        assert_eq!(shard.stats().blocks, 0, "the payload goes when the last of its pushes is delivered");
    }
}

#[test]
fn a_cancelled_broadcast_goes_no_further() {
    let mut shard = shard(Hold);
    let mut clients: Vec<Client> = (1..=3).map(|port| open(&mut shard, port).0).collect();
    let slowly = Broadcast { ticket: Ticket(8), bytes: b"news", pace_per_s: 1, prefix: b"", expires_in_s: 0 };
    let job = shard.broadcast(Time(0), &slowly).unwrap();
    shard.tick(Time::from_ms(1));
    assert!(shard.cancel_job(Time::from_ms(2), job));
    assert!(!shard.cancel_job(Time::from_ms(3), job));
    let mut got = vec![Vec::new(); 3];
    exchange(&mut shard, &mut clients, &mut got, Time::from_ms(4));
    shard.tick(Time::from_ms(60_000));
    assert_eq!(got, [b"news".to_vec(), vec![], vec![]]);
    assert_eq!(shard.job(job).unwrap().state, JobState::Cancelled);
}

#[test]
fn a_held_broadcast_pushes_nothing_before_it_is_released() {
    let mut shard = shard(Hold);
    let (_, flow) = open(&mut shard, 40_000);
    let news = Broadcast { ticket: Ticket(8), bytes: b"news", pace_per_s: 0, prefix: b"", expires_in_s: 0 };
    let held = shard.hold_job(Time(0), &news, Some(JobId(41))).unwrap();
    assert_eq!(held, JobId(41));
    shard.tick(Time::from_ms(10));
    assert_eq!(shard.job(held).unwrap().pushed, 0);
    shard.release_job(Time::from_ms(10), held);
    shard.tick(Time::from_ms(10));
    assert_eq!(shard.job(held).unwrap().pushed, 1);
    assert_eq!(shard.flow(Time(0), flow).unwrap().unacked_bytes, 4);
    assert_eq!(shard.hold_job(Time(0), &news, None).unwrap(), JobId(42));
    assert!(shard.cancel_job(Time(0), JobId(42)));
    shard.tick(Time::from_ms(20));
    assert_eq!(shard.job(JobId(42)).unwrap().pushed, 0);
}
