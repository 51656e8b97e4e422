"""The states of one service (requirement A3 to A9 and A11) (requirements A2, A4, A5, A6, A7, A8, A10, B10)."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpool_agent.services import events as e
from hotpool_agent.services import state_machine as m
from hotpool_agent.services.events import Event
from hotpool_agent.services.state_machine import Action, Machine, ProcessPhase, step


def after(*events: Event, start: Machine | None = None) -> tuple[Machine, list[Action]]:
    """The machine after the events, and all actions."""
    machine = start or Machine()
    actions: list[Action] = []
    for event in events:
        machine, more = step(machine, event)
        actions += more
    return machine, actions


RUNNING = (e.Start(), e.Launched(7), e.Ready())


def test_a_start_goes_through_starting_to_running() -> None:
    machine, actions = after(e.Start())
    assert (machine.state, actions) == ("Starting", [Action.LAUNCH])
    machine, actions = after(*RUNNING)
    assert (machine.state, machine.pid, actions) == ("Running", 7, [Action.LAUNCH, Action.PROBE, Action.PROBE_LIVENESS])


@pytest.mark.parametrize("events", [(), RUNNING])
def test_a_repeated_command_does_nothing(events: tuple[Event, ...]) -> None:
    before, _ = after(*events)
    again = e.Start() if events else e.Stop()
    assert step(before, again) == (before, ())


def test_stop_while_the_process_is_being_launched_ends_it() -> None:
    machine, actions = after(e.Start(), e.Stop(), e.Launched(7), e.Gone())
    assert machine == Machine()
    assert actions == [Action.LAUNCH, Action.TERMINATE]


def test_stop_while_probing_ends_stopped_without_an_error() -> None:
    machine, actions = after(e.Start(), e.Launched(7), e.Stop(), e.Gone())
    assert machine == Machine()
    assert actions[-2:] == [Action.STOP_PROBE, Action.TERMINATE]


def test_start_during_stop_ends_running() -> None:
    machine, actions = after(*RUNNING, e.Stop(), e.Withdrawn(), e.Start(), e.Gone(), e.Launched(8), e.Ready())
    assert (machine.state, machine.pid) == ("Running", 8)
    assert actions[3:] == [
        *(Action.STOP_PROBE, Action.WITHDRAW, Action.TERMINATE),
        *(Action.LAUNCH, Action.PROBE, Action.PROBE_LIVENESS),
    ]


def test_start_before_term_was_sent_keeps_the_process() -> None:
    machine, actions = after(*RUNNING, e.Stop(), e.Start())
    assert (machine.state, machine.pid) == ("Running", 7)
    assert actions[3:] == [Action.STOP_PROBE, Action.WITHDRAW, Action.CANCEL_WITHDRAWAL, Action.PROBE_LIVENESS]


def test_a_start_that_takes_too_long_fails_and_is_killed() -> None:
    machine, actions = after(e.Start(), e.Launched(7), e.StartTimedOut("late"))
    assert (machine.state, machine.last_error, machine.phase) == ("Failed", "late", ProcessPhase.ENDING)
    assert actions[-1] is Action.KILL


def test_a_crash_is_failed_with_its_reason_and_keeps_the_wish() -> None:
    machine, actions = after(*RUNNING, e.Exited("exited with code 3"), e.Gone())
    assert (machine.state, machine.last_error, machine.should_run) == ("Failed", "exited with code 3", True)
    assert Action.KILL in actions


def test_a_hung_service_leaves_running_and_is_ended() -> None:
    machine, actions = after(*RUNNING, e.Hung("3 probes failed"))
    assert (machine.state, machine.last_error, actions[-1]) == ("Failed", "3 probes failed", Action.TERMINATE)


def test_a_retry_follows_the_end_of_what_failed_and_keeps_the_error_visible() -> None:
    machine, actions = after(*RUNNING, e.Exited("exited with code 3"))
    assert Action.RETRY not in actions
    machine, actions = after(e.Gone(), start=machine)
    assert actions == [Action.RETRY]
    machine, actions = after(e.Retry(), e.Launched(8), e.Ready(), start=machine)
    assert (machine.state, machine.restarts, machine.last_error) == ("Running", 1, "exited with code 3")


@pytest.mark.parametrize("command", [e.Start(), e.Stop(), e.Restart(), e.Halt()])
def test_a_command_ends_the_wait_for_a_retry(command: Event) -> None:
    machine, actions = after(*RUNNING, e.Exited("x"), e.Gone(), command)
    assert Action.CANCEL_RETRY in actions
    assert machine.restarts == 0


def test_a_start_that_fails_is_tried_again_too() -> None:
    assert after(e.Start(), e.LaunchFailed("no such program"))[1][-1] is Action.RETRY
    assert after(e.Start(), e.Launched(7), e.StartTimedOut("late"), e.Gone())[1][-1] is Action.RETRY


def test_a_heavy_service_launches_in_its_turn_and_leaves_the_queue_when_stopped() -> None:
    heavy = Machine(heavy=True)
    machine, actions = after(e.Start(), start=heavy)
    assert (machine.state, actions) == ("Starting", [Action.QUEUE])
    assert after(e.StartAllowed(), start=machine)[1] == [Action.LAUNCH]
    assert after(e.Stop(), start=machine) == (heavy, [Action.UNQUEUE])


def test_a_turn_lasts_until_the_service_runs_or_is_gone() -> None:
    events = (e.Start(), e.StartAllowed(), e.Launched(7), e.StartTimedOut("late"), e.Gone())
    loading = [m.is_loading(after(*events[:count], start=Machine(heavy=True))[0]) for count in range(len(events) + 1)]
    assert loading == [False, True, True, True, True, False]
    assert not m.is_loading(after(e.Start(), e.StartAllowed(), e.Launched(7), e.Ready(), start=Machine(heavy=True))[0])


def test_a_queued_service_that_is_heavy_no_more_launches_and_probes_begin_anew() -> None:
    queued, _ = after(e.Start(), start=Machine(heavy=True))
    assert after(e.Revised(heavy=True), start=queued) == (queued, [])
    machine, actions = after(e.Revised(heavy=False), start=queued)
    assert (machine.phase, m.is_loading(machine), actions) == (
        ProcessPhase.LAUNCHING,
        False,
        [Action.UNQUEUE, Action.LAUNCH],
    )
    assert after(e.Start(), e.Launched(7), e.Revised(heavy=False))[1][-1] is Action.PROBE
    assert after(*RUNNING, e.Revised(heavy=False))[1][-1] is Action.PROBE_LIVENESS
    assert after(*RUNNING, e.Stop(), e.Revised(heavy=False))[1][-1] is Action.WITHDRAW


def test_a_restart_stops_and_runs_again() -> None:
    machine, actions = after(*RUNNING, e.Restart(), e.Withdrawn(), e.Gone(), e.Launched(8), e.Ready())
    assert (machine.state, machine.pid, machine.should_run, machine.restarts) == ("Running", 8, True, 0)
    assert actions[3:6] == [Action.STOP_PROBE, Action.WITHDRAW, Action.TERMINATE]
    assert after(e.Restart())[1] == [Action.LAUNCH]


@pytest.mark.parametrize(
    ("fitness", "wanted", "state", "action"),
    [
        (e.AdoptionState.WAS_READY, True, "Starting", Action.PROBE_ADOPTED),
        (e.AdoptionState.WAS_LOADING, True, "Starting", Action.PROBE),
        (e.AdoptionState.UNFIT, True, "Starting", Action.TERMINATE),
        (e.AdoptionState.WAS_READY, False, "Stopping", Action.TERMINATE),
    ],
)
def test_what_still_runs_is_adopted_or_ended(
    fitness: e.AdoptionState, *, wanted: bool, state: str, action: Action
) -> None:
    machine, actions = after(e.Adopted(7, fitness), start=Machine(should_run=wanted))
    assert (machine.state, machine.pid, actions) == (state, 7, [action])


def test_what_is_not_recognised_is_ended_and_run_anew() -> None:
    machine, actions = after(
        e.Adopted(7, e.AdoptionState.WAS_READY),
        e.AdoptionFailed("503"),
        e.Gone(),
        start=Machine(should_run=True),
    )
    assert (machine.state, actions) == ("Starting", [Action.PROBE_ADOPTED, Action.TERMINATE, Action.LAUNCH])


def test_a_failed_service_can_be_started_and_loses_its_error() -> None:
    machine, _ = after(*RUNNING, e.Exited("x"), e.Start(), e.Gone(), e.Launched(9), e.Ready())
    assert (machine.state, machine.last_error) == ("Running", None)


def test_term_follows_the_announcement_only() -> None:
    machine, actions = after(*RUNNING, e.Stop())
    assert (machine.state, actions[-1]) == ("Stopping", Action.WITHDRAW)
    machine, more = step(machine, e.Withdrawn())
    assert more == (Action.TERMINATE,)


def test_what_does_not_go_away_is_failed_until_it_does() -> None:
    machine, _ = after(*RUNNING, e.Stop(), e.Withdrawn(), e.Stuck("port 1 is in use"))
    assert (machine.state, m.is_settled(machine)) == ("Failed", True)
    assert step(machine, e.Gone())[0].state == "Stopped"


def test_a_halt_stops_and_keeps_the_wish() -> None:
    machine, _ = after(*RUNNING, e.Halt(), e.Withdrawn(), e.Gone())
    assert (machine.state, machine.should_run) == ("Stopped", True)
    assert step(machine, e.Start())[1] == ()


@pytest.mark.parametrize(
    ("event", "state"),
    [
        (e.Ready(), "Running"),
        (e.Unready("503", absent=False), "Failed"),
        (e.Unready("", absent=True), "Stopped"),
    ],
)
def test_an_observed_service_follows_its_probe(event: Event, state: str) -> None:
    machine, actions = after(e.Ready(), event, start=Machine(observed=True))
    assert (machine.state, actions) == (state, [])


def test_an_observed_service_takes_no_command() -> None:
    assert after(e.Start(), e.Stop(), e.Halt(), start=Machine(observed=True)) == (
        Machine(observed=True),
        [],
    )


@dataclass
class World:
    """A stand-in for `service`: performs actions, with answers that come when the test lets them."""

    machine: Machine = field(default_factory=Machine)
    answers: dict[str, list[Event]] = field(default_factory=dict)
    """By slot (a slot has one task at a time): possible answers of the action under way."""
    alive: bool = False

    def give(self, event: Event) -> None:
        """Give the machine an event."""
        self.machine, actions = step(self.machine, event)
        for action in actions:
            self.perform(action)

    def perform(self, action: Action) -> None:
        """Begin what the machine asks for."""
        if action is Action.LAUNCH:
            assert not self.alive, "two processes"
            self.answers["process"] = [e.Launched(1), e.LaunchFailed("no such program")]
        elif action is Action.PROBE:
            self.answers["probe"] = [e.Ready(), e.StartTimedOut("late")]
        elif action is Action.PROBE_ADOPTED:
            self.answers["probe"] = [e.Ready(), e.AdoptionFailed("not it")]
        elif action is Action.PROBE_LIVENESS:
            self.answers["probe"] = [e.Hung("hung")]
        elif action is Action.QUEUE:
            self.answers["queue"] = [e.StartAllowed()]
        elif action is Action.RETRY:
            self.answers["retry"] = [e.Retry()]
        elif action is Action.WITHDRAW:
            self.answers["announce"] = [e.Withdrawn()]
        elif action in {Action.TERMINATE, Action.KILL}:
            self.answers["end"] = [e.Gone()]
        else:
            self.answers.pop(action.name.removeprefix("UN").lower(), None)

    def answer(self, slot: str, which: int) -> None:
        """Let the action in the slot end."""
        options = self.answers.pop(slot)
        event = options[which % len(options)]
        if isinstance(event, e.Launched):
            self.alive = True
            self.answers["process"] = [e.Exited("exited with code 1")]
        if isinstance(event, e.Gone):
            self.alive = False
            self.answers.pop("process", None)
        self.give(event)

    def drain(self) -> None:
        """Everything goes well from now on: no failure, no crash."""
        while slots := [slot for slot in self.answers if not isinstance(self.answers[slot][0], e.Exited | e.Hung)]:
            self.answer(slots[0], 0)

    def play(self, moves: list[Event | tuple[int, int]]) -> None:
        """Commands, and answers by number."""
        for move in moves:
            if not isinstance(move, tuple):
                self.give(move)
            elif self.answers:
                self.answer(sorted(self.answers)[move[0] % len(self.answers)], move[1])


def world_of(*, heavy: bool, left: e.AdoptionState | None) -> World:
    """A world with nothing in it, or with a process that an earlier agent left."""
    world = World(Machine(heavy=heavy, should_run=left is not None))
    if left:
        world.alive = True
        world.answers["process"] = [e.Exited("ended")]
        world.give(e.Adopted(1, left))
    return world


commands = st.sampled_from([e.Start(), e.Stop(), e.Restart()])
revisions = st.builds(e.Revised, heavy=st.booleans())
moves = st.lists(st.one_of(commands, revisions, st.tuples(st.integers(0, 4), st.integers(0, 1))), max_size=30)
worlds = st.builds(world_of, heavy=st.booleans(), left=st.none() | st.sampled_from(e.AdoptionState))


@given(worlds, moves, commands)
def test_whatever_happens_the_last_command_wins(
    world: World, sequence: list[Event | tuple[int, int]], last: Event
) -> None:
    world.play(sequence)
    # What has run again by itself keeps its error: there is nothing to do for a start.
    seen = world.machine.last_error if world.machine.state == "Running" and isinstance(last, e.Start) else None
    world.give(last)
    world.drain()
    if isinstance(last, e.Stop):
        assert world.machine == Machine(heavy=world.machine.heavy, restarts=world.machine.restarts)
        assert not world.alive
    else:
        assert (world.machine.state, world.alive, world.machine.last_error) == ("Running", True, seen)


@given(worlds, moves)
def test_only_a_running_service_has_a_process_in_the_end(world: World, sequence: list[Event | tuple[int, int]]) -> None:
    world.play(sequence)
    world.drain()
    assert m.is_settled(world.machine)
    assert not m.is_loading(world.machine)
    assert world.alive == (world.machine.state == "Running")
    assert (world.machine.state == "Running") == world.machine.should_run
