"""The states of one service (behaviour A3, A4, A5, A7, A9)."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpool_agent import machine as m
from hotpool_agent.machine import Action, Body, Event, Machine, step


def after(*events: Event, start: Machine | None = None) -> tuple[Machine, list[Action]]:
    """The machine after the events, and all actions."""
    machine = start or Machine()
    actions: list[Action] = []
    for event in events:
        machine, more = step(machine, event)
        actions += more
    return machine, actions


RUNNING = (m.Start(), m.Launched(7), m.Ready())


def test_a3_a_start_goes_through_starting_to_running() -> None:
    machine, actions = after(m.Start())
    assert (machine.state, actions) == ("Starting", [Action.LAUNCH])
    machine, actions = after(*RUNNING)
    assert (machine.state, machine.pid, actions) == ("Running", 7, [Action.LAUNCH, Action.PROBE])


@pytest.mark.parametrize("events", [(), RUNNING])
def test_a2_a_repeated_command_does_nothing(events: tuple[Event, ...]) -> None:
    before, _ = after(*events)
    again = m.Start() if events else m.Stop()
    assert step(before, again) == (before, ())


def test_a4_stop_while_the_process_is_being_launched_ends_it() -> None:
    machine, actions = after(m.Start(), m.Stop(), m.Launched(7), m.Gone())
    assert machine == Machine()
    assert actions == [Action.LAUNCH, Action.TERMINATE]


def test_a4_stop_while_probing_ends_stopped_without_an_error() -> None:
    machine, actions = after(m.Start(), m.Launched(7), m.Stop(), m.Gone())
    assert machine == Machine()
    assert actions[-2:] == [Action.UNPROBE, Action.TERMINATE]


def test_a4_start_during_stop_ends_running() -> None:
    machine, actions = after(*RUNNING, m.Stop(), m.Announced(), m.Start(), m.Gone(), m.Launched(8), m.Ready())
    assert (machine.state, machine.pid) == ("Running", 8)
    assert actions[2:] == [Action.ANNOUNCE, Action.TERMINATE, Action.LAUNCH, Action.PROBE]


def test_a4_start_before_term_was_sent_keeps_the_process() -> None:
    machine, actions = after(*RUNNING, m.Stop(), m.Start())
    assert (machine.state, machine.pid) == ("Running", 7)
    assert actions[2:] == [Action.ANNOUNCE, Action.UNANNOUNCE]


def test_a5_a_start_that_takes_too_long_fails_and_is_killed() -> None:
    machine, actions = after(m.Start(), m.Launched(7), m.StartTimedOut("late"))
    assert (machine.state, machine.last_error, machine.body) == ("Failed", "late", Body.ENDING)
    assert actions[-1] is Action.KILL


def test_a7_a_crash_is_failed_with_its_reason_and_keeps_the_wish() -> None:
    machine, actions = after(*RUNNING, m.Exited("exited with code 3"), m.Gone())
    assert (machine.state, machine.last_error, machine.wanted) == ("Failed", "exited with code 3", True)
    assert Action.KILL in actions


def test_a7_a_failed_service_can_be_started_and_loses_its_error() -> None:
    machine, _ = after(*RUNNING, m.Exited("x"), m.Start(), m.Gone(), m.Launched(9), m.Ready())
    assert (machine.state, machine.last_error) == ("Running", None)


def test_a9_term_follows_the_announcement_only() -> None:
    machine, actions = after(*RUNNING, m.Stop())
    assert (machine.state, actions[-1]) == ("Stopping", Action.ANNOUNCE)
    machine, more = step(machine, m.Announced())
    assert more == (Action.TERMINATE,)


def test_a9_what_does_not_go_away_is_failed_until_it_does() -> None:
    machine, _ = after(*RUNNING, m.Stop(), m.Announced(), m.Stuck("port 1 is in use"))
    assert (machine.state, m.settled(machine)) == ("Failed", True)
    assert step(machine, m.Gone())[0].state == "Stopped"


def test_b10_a_halt_stops_and_keeps_the_wish() -> None:
    machine, _ = after(*RUNNING, m.Halt(), m.Announced(), m.Gone())
    assert (machine.state, machine.wanted) == ("Stopped", True)
    assert step(machine, m.Start())[1] == ()


@pytest.mark.parametrize(
    ("event", "state"),
    [(m.Ready(), "Running"), (m.Unready("503", absent=False), "Failed"), (m.Unready("", absent=True), "Stopped")],
)
def test_a3_an_observed_service_follows_its_probe(event: Event, state: str) -> None:
    machine, actions = after(m.Ready(), event, start=Machine(observed=True))
    assert (machine.state, actions) == (state, [])


def test_a3_an_observed_service_takes_no_command() -> None:
    assert after(m.Start(), m.Stop(), m.Halt(), start=Machine(observed=True)) == (Machine(observed=True), [])


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
            self.answers["process"] = [m.Launched(1), m.LaunchFailed("no such program")]
        elif action is Action.PROBE:
            self.answers["probe"] = [m.Ready(), m.StartTimedOut("late")]
        elif action is Action.ANNOUNCE:
            self.answers["announce"] = [m.Announced()]
        elif action in {Action.TERMINATE, Action.KILL}:
            self.answers["end"] = [m.Gone()]
        else:
            self.answers.pop("probe" if action is Action.UNPROBE else "announce", None)

    def answer(self, slot: str, which: int) -> None:
        """Let the action in the slot end."""
        options = self.answers.pop(slot)
        event = options[which % len(options)]
        if isinstance(event, m.Launched):
            self.alive = True
            self.answers["process"] = [m.Exited("exited with code 1")]
        if isinstance(event, m.Gone):
            self.alive = False
            self.answers.pop("process", None)
        self.give(event)

    def drain(self) -> None:
        """Everything goes well from now on: no failure, no crash."""
        while slots := [slot for slot in self.answers if not isinstance(self.answers[slot][0], m.Exited)]:
            self.answer(slots[0], 0)


commands = st.sampled_from([m.Start(), m.Stop()])
moves = st.lists(st.one_of(commands, st.tuples(st.integers(0, 3), st.integers(0, 1))), max_size=30)


@given(moves, commands)
def test_a4_whatever_happens_the_last_command_wins(sequence: list[Event | tuple[int, int]], last: Event) -> None:
    world = World()
    for move in sequence:
        if not isinstance(move, tuple):
            world.give(move)
        elif world.answers:
            world.answer(sorted(world.answers)[move[0] % len(world.answers)], move[1])
    world.give(last)
    world.drain()
    if isinstance(last, m.Start):
        assert (world.machine.state, world.alive) == ("Running", True)
        assert world.machine.last_error is None
    else:
        assert (world.machine.state, world.alive) == ("Stopped", False)
        assert world.machine.body is Body.NONE


@given(moves)
def test_a5_a_failed_service_has_no_process_in_the_end(sequence: list[Event | tuple[int, int]]) -> None:
    world = World()
    for move in sequence:
        if not isinstance(move, tuple):
            world.give(move)
        elif world.answers:
            world.answer(sorted(world.answers)[move[0] % len(world.answers)], move[1])
    world.drain()
    assert m.settled(world.machine)
    assert world.alive == (world.machine.state == "Running")
