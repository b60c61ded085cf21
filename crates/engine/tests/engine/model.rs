//! Random histories against a plain model: who opens what.

use std::collections::{BTreeMap, BTreeSet};

use sealcast_engine::{NotSealed, SharedWith};
use sealcast_protocol::{Interval, LogHash, Position, Roles, SessionId, Targets};

use crate::rig::{NOON, OWNER, World, between, header, since};

/// What the history of a stream adds up to, said as plainly as possible. Everybody hears of
/// everything at once.
#[derive(Default)]
struct Model {
    /// Grants that stand.
    grants: BTreeMap<LogHash, Given>,
    sessions: Vec<Session>,
    /// For each user, what was put into its hands.
    held: BTreeSet<(usize, SessionId, Interval)>,
    messages: Vec<(Position, SessionId, String)>,
    users: usize,
}

struct Given {
    to: usize,
    roles: Roles,
    interval: Interval,
    /// Lanes whose publishers took them out.
    lanes_lost: BTreeSet<usize>,
}

struct Session {
    id: SessionId,
    lane: usize,
    /// Whether a removal or a rekey ended it.
    is_over: bool,
}

impl Model {
    fn roles(&self, user: usize) -> Roles {
        if user == OWNER {
            return Roles::ADMIN.with(Roles::PUBLISHER).with(Roles::READER);
        }
        let of_user = self.grants.values().filter(|of| of.to == user);
        of_user.fold(Roles::NONE, |roles, of| roles.with(of.roles))
    }

    fn is_admin(&self, user: usize) -> bool {
        self.roles(user).contains(Roles::ADMIN)
    }

    fn is_keyholder(&self, user: usize, lane: usize) -> bool {
        self.is_admin(user) || (user == lane && self.roles(user).contains(Roles::PUBLISHER))
    }

    fn may_publish(&self, user: usize, at: Position) -> bool {
        let by_grant = |of: &Given| {
            of.to == user && of.roles.contains(Roles::PUBLISHER) && of.interval.contains(at)
        };
        self.is_admin(user) || self.grants.values().any(by_grant)
    }

    fn entitled(&self, user: usize, lane: usize) -> Vec<Interval> {
        if self.is_keyholder(user, lane) {
            return vec![Interval::ALL];
        }
        let of_user = self.grants.values().filter(|of| of.to == user);
        let reading =
            of_user.filter(|of| of.roles.contains(Roles::READER) && !of.lanes_lost.contains(&lane));
        reading.map(|of| of.interval).collect()
    }

    fn holds_all(&self, user: usize, session: SessionId) -> bool {
        self.held.contains(&(user, session, Interval::ALL))
    }

    /// A keyholder hands out all that others are entitled to and that it holds.
    fn share(&mut self, by: usize, only: Option<usize>) {
        for session in &self.sessions {
            if !self.holds_all(by, session.id) || !self.is_keyholder(by, session.lane) {
                continue;
            }
            for user in 0..self.users {
                let is_served =
                    self.is_keyholder(user, session.lane) || only.is_none_or(|of| of == user);
                if is_served {
                    let entitled = self.entitled(user, session.lane).into_iter();
                    self.held.extend(entitled.map(|of| (user, session.id, of)));
                }
            }
        }
    }

    fn start(&mut self, id: SessionId, lane: usize) {
        self.end(lane);
        self.sessions.push(Session {
            id,
            lane,
            is_over: false,
        });
        let holders = (0..self.users).filter(|user| self.is_keyholder(*user, lane));
        let holders: Vec<_> = holders.map(|user| (user, id, Interval::ALL)).collect();
        self.held.extend(holders);
        self.held.insert((lane, id, Interval::ALL));
        self.share(lane, None);
    }

    fn end(&mut self, lane: usize) {
        for session in self.sessions.iter_mut().filter(|of| of.lane == lane) {
            session.is_over = true;
        }
    }

    fn opens(&self, user: usize) -> BTreeSet<String> {
        let holds = |at: &Position, session: &SessionId| {
            self.held.iter().any(|(of, held, interval)| {
                (of, held) == (&user, session) && interval.contains(*at)
            })
        };
        let open = self
            .messages
            .iter()
            .filter(|(at, session, _)| holds(at, session));
        open.map(|(.., text)| text.clone()).collect()
    }
}

#[test]
fn random_histories_open_for_everyone_what_the_model_says() {
    for seed in 200..216 {
        run(seed, 90);
    }
}

fn run(seed: u64, steps: usize) {
    let mut world = World::new(seed);
    let users: Vec<_> = (0..6).map(|_| world.user()).collect();
    let mut model = Model {
        users: users.len() + 1,
        ..Model::default()
    };
    for step in 0..steps {
        let what = world.rng.below(20);
        let by = *world.rng.pick(&[OWNER, OWNER, 1, 2, 3]);
        let user = world.rng.below(model.users as u64) as usize;
        match what {
            0..=3 => grant(&mut world, &mut model, by, user),
            4 => revoke_user(&mut world, &mut model, by, user),
            5 => revoke_grant(&mut world, &mut model, by),
            6 => rekey(&mut world, &mut model, user),
            7 => {
                world.share(by, SharedWith::Everyone);
                model.share(by, None);
            }
            8 if model.may_publish(by, world.now.after(1)) => {
                let sealed = model.messages.iter().map(|(at, ..)| *at).max();
                let cut = world.cut(by);
                let own = model.messages.iter().filter(|(_, session, _)| {
                    model
                        .sessions
                        .iter()
                        .any(|of| of.id == *session && of.lane == by)
                });
                assert!(
                    own.map(|(at, ..)| *at).max().is_none_or(|at| at < cut),
                    "{sealed:?}"
                );
            }
            9 => world.restart(user),
            10 => world.new_run(user),
            _ => publish(&mut world, &mut model, user, &format!("{seed}.{step}")),
        }
        let ms = world.rng.below(9);
        world.tick(ms);
        (0..model.users).for_each(|user| world.sync(user));
    }
    for user in 0..model.users {
        let opened: BTreeSet<_> = world.opened(user).into_iter().collect();
        assert_eq!(opened, model.opens(user), "seed {seed}, user {user}");
        assert_eq!(world.peers[user].alarms, [], "seed {seed}, user {user}");
    }
}

fn grant(world: &mut World, model: &mut Model, by: usize, to: usize) {
    let is_admin = world.rng.below(6) == 0;
    let roles = match world.rng.below(3) {
        _ if is_admin => Roles::ADMIN,
        0 => Roles::PUBLISHER.with(Roles::READER),
        1 => Roles::PUBLISHER,
        _ => Roles::READER,
    };
    let around = NOON.after(world.rng.below(400));
    let interval = match world.rng.below(3) {
        _ if is_admin => Interval::ALL,
        0 => since(around),
        _ => between(around, around.after(1 + world.rng.below(200))),
    };
    let may_write = by == OWNER || (model.is_admin(by) && !is_admin);
    let written = world.write_grant(by, to, roles, interval);
    assert_eq!(
        written.is_ok(),
        may_write && to != OWNER,
        "{by} grants {roles:?} to {to}"
    );
    if let Ok(id) = written {
        let given = Given {
            to,
            roles,
            interval,
            lanes_lost: BTreeSet::new(),
        };
        model.grants.insert(id, given);
        if world.rng.below(4) > 0 {
            world.share(by, SharedWith::User(world.id(to)));
            model.share(by, Some(to));
        }
    }
}

fn revoke_user(world: &mut World, model: &mut Model, by: usize, user: usize) {
    let of_user = model.grants.iter().filter(|(_, of)| of.to == user);
    let ids: Vec<_> = of_user.map(|(id, _)| *id).collect();
    let written = world.revoke_user(by, user);
    let has_effect = take(model, by, &ids);
    assert_eq!(written.is_ok(), has_effect, "{by} revokes {user}");
}

fn revoke_grant(world: &mut World, model: &mut Model, by: usize) {
    let ids: Vec<_> = model.grants.keys().copied().collect();
    if ids.is_empty() {
        return;
    }
    let id = *world.rng.pick(&ids);
    let written = world.revoke(by, Targets::Grants(vec![id]));
    let has_effect = take(model, by, &[id]);
    assert_eq!(written.is_ok(), has_effect, "{by} revokes a grant");
}

/// Owner and admins take grants, which ends every session for its next message; a publisher takes
/// the reading of its lane, which ends its own. Returns whether anything was taken.
fn take(model: &mut Model, by: usize, ids: &[LogHash]) -> bool {
    let is_shielded = |id: &LogHash| model.is_admin(model.grants[id].to);
    if model.is_admin(by) {
        let taken = ids.iter().filter(|id| by == OWNER || !is_shielded(id));
        let taken: Vec<_> = taken.copied().collect();
        for id in &taken {
            model.grants.remove(id);
            model.sessions.iter_mut().for_each(|of| of.is_over = true);
        }
        return !taken.is_empty();
    }
    if !model.roles(by).contains(Roles::PUBLISHER) {
        return false;
    }
    let mut has_effect = false;
    for id in ids {
        let of = model.grants.get_mut(id).unwrap();
        has_effect |= of.roles.contains(Roles::READER) && of.lanes_lost.insert(by);
    }
    if has_effect {
        model.end(by);
    }
    has_effect
}

fn rekey(world: &mut World, model: &mut Model, by: usize) {
    world.sync(by);
    let of = &world.peers[by];
    if of.publisher.position(world.now, &of.lane, &of.view).is_ok() {
        world.rekey(by);
        model.start(world.peers[by].lane.session, by);
    }
}

fn publish(world: &mut World, model: &mut Model, by: usize, text: &str) {
    let before = world.peers[by].lane.session;
    match world.publish(by, text) {
        Ok(_) => {
            let sealed = header(world.data().last().unwrap());
            assert!(model.may_publish(by, sealed.position), "{by} seals {text}");
            let is_over = model
                .sessions
                .iter()
                .all(|of| of.id != before || of.is_over);
            assert_eq!(
                is_over,
                sealed.session != before,
                "{by} starts a session for {text}"
            );
            if is_over {
                model.start(sealed.session, by);
            }
            let message = (sealed.position, sealed.session, text.to_owned());
            model.messages.push(message);
        }
        Err(error) => {
            assert_eq!(error, NotSealed::NotEntitled);
            let of = &world.peers[by];
            let position = of
                .lane
                .next_position(world.now, of.view.state().mark())
                .unwrap();
            assert!(
                !model.may_publish(by, position),
                "{by} does not seal {text}"
            );
        }
    }
}
