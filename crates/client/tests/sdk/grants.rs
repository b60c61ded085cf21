//! Who can open what, by what was granted.

use sealcast::{Bound, Error, GrantOptions, GrantStatus, Interval, Position, Roles, State};

use crate::rig::*;

#[tokio::test]
async fn a_late_grant_opens_exactly_its_interval() {
    let (rig, time) = (Rig::new(), Time::new());
    let alice = rig.home_by("alice", &time).await;
    let bob = rig.home_by("bob", &time).await;
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    let mut at = Vec::new();
    for text in ["a", "b", "c", "d"] {
        time.pass(1);
        at.push(say(&stream, text).await);
    }
    assert!(at.windows(2).all(|two| two[1].0 == two[0].0 + 1));
    let ungranted = "Sealed(NotGranted)";
    assert_eq!(history(&joined).await, [ungranted; 4]);

    let granted = stream
        .grant(to(bob.user(), Roles::READER, between(at[1], at[3])))
        .await
        .unwrap();
    assert_eq!((granted.devices, granted.bundles), (1, 1));
    assert_eq!(granted.interval, between(at[1], at[3]));
    assert_eq!(history(&joined).await, [ungranted, "b", "c", ungranted]);
}

#[tokio::test]
async fn a_backfill_opens_to_the_millisecond() {
    let rig = Rig::new();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    let start = Position(1_600_000_000_000);
    let mut backfill = stream.backfill().await.unwrap();
    for i in 0..300 {
        let text = format!("r{i}");
        backfill
            .send(start.after(i * 10), text.as_bytes())
            .await
            .unwrap();
    }
    assert_eq!(backfill.finish().await.unwrap().records, 300);
    let live = say(&stream, "live").await;
    assert!(live > start.after(3_000));

    let interval = between(start.after(1_000), start.after(1_991));
    let grant = to(bob.user(), Roles::READER, interval);
    stream.grant(grant).await.unwrap();
    let all = deliveries(&joined).await;
    let opened: Vec<_> = all.iter().filter(|of| of.state == State::Opened).collect();
    let expected: Vec<_> = (100..200).map(|i| format!("r{i}")).collect();
    assert_eq!(
        opened.iter().map(|of| line(of)).collect::<Vec<_>>(),
        expected
    );
    assert!(opened.iter().all(|of| interval.contains(of.time)));
    let sealed = all.iter().filter(|of| line(of) == "Sealed(NotGranted)");
    assert_eq!(sealed.count(), 201);
}

#[tokio::test]
async fn two_readers_together_open_the_union_and_no_more() {
    let (rig, time) = (Rig::new(), Time::new());
    let alice = rig.home_by("alice", &time).await;
    let (bob, carol) = (
        rig.home_by("bob", &time).await,
        rig.home_by("carol", &time).await,
    );
    let stream = kitchen(&alice).await;
    let (at_bob, at_carol) = (join(&bob, &stream).await, join(&carol, &stream).await);
    let mut at = Vec::new();
    for i in 0..6 {
        time.pass(1);
        at.push(say(&stream, &i.to_string()).await);
    }
    for (user, interval) in [
        (bob.user(), between(at[0], at[2])),
        (carol.user(), between(at[3], at[5])),
    ] {
        let grant = to(user, Roles::READER, interval);
        stream.grant(grant).await.unwrap();
    }
    let sealed = "Sealed(NotGranted)";
    let (of_bob, of_carol) = (history(&at_bob).await, history(&at_carol).await);
    assert_eq!(of_bob, ["0", "1", sealed, sealed, sealed, sealed]);
    assert_eq!(of_carol, [sealed, sealed, sealed, "3", "4", sealed]);
}

#[tokio::test]
async fn the_owner_grants_when_the_publisher_is_gone_for_good() {
    let rig = Rig::new();
    let (alice, bob, carol) = (
        rig.home("alice").await,
        rig.home("bob").await,
        rig.home("carol").await,
    );
    let stream = kitchen(&alice).await;
    let at_bob = join(&bob, &stream).await;
    stream
        .grant(from_now(bob.user(), Roles::PUBLISHER))
        .await
        .unwrap();
    say(&at_bob, "from bob").await;
    drop((at_bob, bob));
    std::fs::remove_dir_all(rig.path("bob")).unwrap();

    let at_carol = join(&carol, &stream).await;
    stream.grant(all_to(carol.user())).await.unwrap();
    assert_eq!(history(&at_carol).await, ["from bob"]);
}

#[tokio::test]
async fn an_admin_grants_what_others_published() {
    let rig = Rig::new();
    let (alice, bob, carol) = (
        rig.home("alice").await,
        rig.home("bob").await,
        rig.home("carol").await,
    );
    let stream = kitchen(&alice).await;
    say(&stream, "before").await;
    let (at_bob, at_carol) = (join(&bob, &stream).await, join(&carol, &stream).await);
    let admin = to(bob.user(), Roles::ADMIN, Interval::ALL);
    stream.grant(admin).await.unwrap();
    drop((stream, alice));
    std::fs::remove_dir_all(rig.path("alice")).unwrap();

    at_bob.grant(all_to(carol.user())).await.unwrap();
    assert_eq!(history(&at_carol).await, ["before"]);
}

#[tokio::test]
async fn who_is_let_in_now_cannot_open_the_past_before_or_after_a_rekey() {
    let (rig, time) = (Rig::new(), Time::new());
    let alice = rig.home_by("alice", &time).await;
    let bob = rig.home_by("bob", &time).await;
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    let past = say(&stream, "past").await;
    let granted = stream
        .grant(from_now(bob.user(), Roles::READER))
        .await
        .unwrap();
    assert!(granted.interval.from > past);
    say(&stream, "one").await;
    stream.rekey().await.unwrap();
    say(&stream, "two").await;
    assert_eq!(history(&joined).await, ["Sealed(NotGranted)", "one", "two"]);
}

#[tokio::test]
async fn nothing_opens_from_its_end_on_and_ending_sends_no_keys() {
    let (rig, time) = (Rig::new(), Time::new());
    let (alice, bob) = (
        rig.home_by("alice", &time).await,
        rig.home_by("bob", &time).await,
    );
    let stream = kitchen(&alice).await;
    let joined = join(&bob, &stream).await;
    let end = time.now().after(60_000);
    let interval = between(Position::START, end);
    stream
        .grant(to(bob.user(), Roles::READER, interval))
        .await
        .unwrap();
    time.pass(59_999);
    assert_eq!(say(&stream, "last").await.after(1), end);
    let keys = rig.keys_end(&stream).await;
    time.pass(1);
    assert_eq!(say(&stream, "late").await, end);
    assert_eq!(rig.keys_end(&stream).await, keys);
    assert_eq!(history(&joined).await, ["last", "Sealed(NotGranted)"]);
}

#[tokio::test]
async fn rotating_sends_no_keys_and_ends_what_ends_now() {
    let (rig, time) = (Rig::new(), Time::new());
    let alice = rig.home_by("alice", &time).await;
    let bob = rig.home_by("bob", &time).await;
    let carol = rig.home_by("carol", &time).await;
    let stream = kitchen(&alice).await;
    let (at_bob, at_carol) = (join(&bob, &stream).await, join(&carol, &stream).await);
    say(&stream, "one").await;
    stream.grant(all_to(bob.user())).await.unwrap();
    let until_now = GrantOptions {
        until: Bound::Now,
        ..all_to(carol.user())
    };
    let granted = stream.grant(until_now).await.unwrap();
    let keys = rig.keys_end(&stream).await;
    let cut = stream.rotate().await.unwrap();
    assert!(cut > granted.interval.until);
    assert!(say(&stream, "two").await >= cut);
    assert_eq!(rig.keys_end(&stream).await, keys);
    assert_eq!(history(&at_bob).await, ["one", "two"]);
    assert_eq!(history(&at_carol).await, ["one", "Sealed(NotGranted)"]);
}

#[tokio::test]
async fn grants_without_sense_are_refused() {
    let rig = Rig::new();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    let stream = kitchen(&alice).await;
    let empty = between(Position(5), Position(5));
    let refused = stream.grant(to(bob.user(), Roles::READER, empty)).await;
    assert!(matches!(refused, Err(Error::EmptyInterval)));
    let short = between(Position(5), Position(6));
    let refused = stream.grant(to(bob.user(), Roles::ADMIN, short)).await;
    assert!(matches!(refused, Err(Error::AdminInterval)));
    let joined = join(&bob, &stream).await;
    let refused = joined.grant(all_to(bob.user())).await;
    assert!(matches!(refused, Err(Error::NotAllowed(_))));
    assert!(matches!(
        joined.publish(b"x").await,
        Err(Error::NotAllowed(_))
    ));
    assert!(matches!(
        joined.publisher().await,
        Err(Error::NotAllowed(_))
    ));
    assert!(matches!(joined.rekey().await, Err(Error::NotAllowed(_))));
    assert!(matches!(joined.rotate().await, Err(Error::NotAllowed(_))));
    assert_eq!(stream.who().await.unwrap().len(), 1);
    assert!(rig.data(&stream).await.is_empty());
}

#[tokio::test]
async fn who_tells_how_far_a_grant_came() {
    let rig = Rig::new();
    let (alice, bob) = (rig.home("alice").await, rig.home("bob").await);
    alice.add_contact(&name("bobby"), bob.user()).unwrap();
    let stream = kitchen(&alice).await;
    say(&stream, "one").await;
    let id = stream.grant(all_to(bob.user())).await.unwrap().id;
    let status = async || stream.who().await.unwrap()[1].status;
    assert_eq!(status().await, GrantStatus::Granted);
    join(&bob, &stream).await;
    assert_eq!(status().await, GrantStatus::Delivered);
    let of_bob = &stream.who().await.unwrap()[1];
    assert_eq!((of_bob.id, of_bob.name.clone()), (id, Some(name("bobby"))));
    let prefix = id.to_string()[..8].to_owned();
    assert_eq!(stream.find_grant(&prefix).await.unwrap(), id);
    assert!(matches!(
        stream.find_grant(&prefix[..7]).await,
        Err(Error::NoGrant(_))
    ));
    stream.revoke_grant(id).await.unwrap();
    assert_eq!(status().await, GrantStatus::Revoked);
}
