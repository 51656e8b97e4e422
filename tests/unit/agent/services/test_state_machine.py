"""The state machine of one service (requirements A2 to A11, B10)."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpool_agent.services import events as e
from hotpool_agent.services import state_machine as m
from hotpool_agent.services.events import Event
from hotpool_agent.services.state_machine import Action, Machine, ProcessPhase, step


def after(*events: Event, start: Machine | None = None) -> tuple[Machine, list[Action]]:
    """Return the machine after the events, and all actions."""
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


def test_a_crash_is_failed_with_its_reason_and_keeps_the_desired_state() -> None:
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


def test_a_heavy_service_waits_in_the_start_queue_and_leaves_it_when_stopped() -> None:
    heavy = Machine(heavy=True)
    machine, actions = after(e.Start(), start=heavy)
    assert (machine.state, actions) == ("Starting", [Action.QUEUE])
    assert after(e.StartAllowed(), start=machine)[1] == [Action.LAUNCH]
    assert after(e.Stop(), start=machine) == (heavy, [])


def test_a_heavy_service_is_loading_until_it_runs_or_has_ended() -> None:
    events = (e.Start(), e.StartAllowed(), e.Launched(7), e.StartTimedOut("late"), e.Gone())
    loading = [m.is_loading(after(*events[:count], start=Machine(heavy=True))[0]) for count in range(len(events) + 1)]
    assert loading == [False, True, True, True, True, False]
    assert not m.is_loading(after(e.Start(), e.StartAllowed(), e.Launched(7), e.Ready(), start=Machine(heavy=True))[0])


def test_a_queued_service_that_is_no_longer_heavy_launches_and_probes_begin_again() -> None:
    queued, _ = after(e.Start(), start=Machine(heavy=True))
    assert after(e.Revised(heavy=True), start=queued) == (queued, [])
    machine, actions = after(e.Revised(heavy=False), start=queued)
    assert (machine.phase, m.is_loading(machine), actions) == (ProcessPhase.LAUNCHING, False, [Action.LAUNCH])
    assert after(e.Start(), e.Launched(7), e.Revised(heavy=False))[1][-1] is Action.PROBE
    assert after(*RUNNING, e.Revised(heavy=False))[1][-1] is Action.PROBE_LIVENESS
    assert after(*RUNNING, e.Stop(), e.Revised(heavy=False))[1][-1] is Action.WITHDRAW


def test_a_restart_stops_and_runs_again() -> None:
    machine, actions = after(*RUNNING, e.Restart(), e.Withdrawn(), e.Gone(), e.Launched(8), e.Ready())
    assert (machine.state, machine.pid, machine.should_run, machine.restarts) == ("Running", 8, True, 0)
    assert actions[3:6] == [Action.STOP_PROBE, Action.WITHDRAW, Action.TERMINATE]
    assert after(e.Restart())[1] == [Action.LAUNCH]


@pytest.mark.parametrize(
    ("adoption_state", "should_run", "state", "action"),
    [
        (e.AdoptionState.WAS_READY, True, "Running", Action.PROBE_ADOPTED),
        (e.AdoptionState.WAS_LOADING, True, "Starting", Action.PROBE),
        (e.AdoptionState.UNFIT, True, "Starting", Action.TERMINATE),
        (e.AdoptionState.WAS_READY, False, "Stopping", Action.TERMINATE),
    ],
)
def test_a_process_that_still_runs_is_adopted_or_ended(
    adoption_state: e.AdoptionState, *, should_run: bool, state: str, action: Action
) -> None:
    machine, actions = after(e.Adopted(7, adoption_state), start=Machine(should_run=should_run))
    assert (machine.state, machine.pid, actions) == (state, 7, [action])


def test_a_process_whose_adoption_failed_is_ended_and_the_service_run_again() -> None:
    machine, actions = after(
        e.Adopted(7, e.AdoptionState.WAS_READY),
        e.AdoptionFailed("503"),
        e.Gone(),
        start=Machine(should_run=True),
    )
    assert (machine.state, actions) == ("Starting", [Action.PROBE_ADOPTED, Action.TERMINATE, Action.LAUNCH])


def test_an_adopted_process_stays_running_until_its_probes_have_failed() -> None:
    machine, actions = after(e.Adopted(7, e.AdoptionState.WAS_READY), e.Ready(), start=Machine(should_run=True))
    assert (machine.state, actions) == ("Running", [Action.PROBE_ADOPTED, Action.PROBE_LIVENESS])


def test_a_start_that_hangs_is_failed_and_not_tried_again_before_it_has_ended() -> None:
    machine, actions = after(e.Start(), e.LaunchHung("no response"))
    assert (machine.state, machine.last_error, actions[-1]) == ("Failed", "no response", Action.KILL)
    machine, actions = after(e.Stuck("process 7 hangs"), start=machine)
    assert (machine.state, m.is_settled(machine), actions) == ("Failed", True, [])
    assert after(e.Gone(), start=machine)[1] == [Action.RETRY]


def test_a_stop_of_a_start_that_hangs_ends_stopped_once_nothing_is_left() -> None:
    machine, actions = after(e.Start(), e.Stop(), e.LaunchHung("no response"), e.Gone())
    assert (machine, actions) == (Machine(), [Action.LAUNCH, Action.KILL])


@pytest.mark.parametrize("events", [RUNNING, (*RUNNING, e.Halt()), (*RUNNING, e.Halt(), e.Withdrawn())])
def test_a_hastened_service_is_killed_at_once(events: tuple[Event, ...]) -> None:
    machine, actions = after(*events, e.Hasten())
    assert (machine.state, machine.phase, actions[-1]) == ("Stopping", ProcessPhase.ENDING, Action.KILL)


def test_a_failed_service_can_be_started_and_loses_its_error() -> None:
    machine, _ = after(*RUNNING, e.Exited("x"), e.Start(), e.Gone(), e.Launched(9), e.Ready())
    assert (machine.state, machine.last_error) == ("Running", None)


def test_term_is_sent_only_after_the_withdrawal() -> None:
    machine, actions = after(*RUNNING, e.Stop())
    assert (machine.state, actions[-1]) == ("Stopping", Action.WITHDRAW)
    machine, more = step(machine, e.Withdrawn())
    assert more == (Action.TERMINATE,)


def test_a_process_that_cannot_be_ended_is_failed_until_it_ends() -> None:
    machine, _ = after(*RUNNING, e.Stop(), e.Withdrawn(), e.Stuck("port 1 is in use"))
    assert (machine.state, m.is_settled(machine)) == ("Failed", True)
    assert step(machine, e.Gone())[0].state == "Stopped"


def test_a_halt_stops_and_keeps_the_desired_state() -> None:
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


CANCELLED = {
    Action.STOP_PROBE: "probe",
    Action.CANCEL_RETRY: "retry",
    Action.CANCEL_WITHDRAWAL: "withdraw",
}


@dataclass
class FakeController:
    """Performs the machine's actions; each ends when the test chooses one of its outcomes."""

    machine: Machine = field(default_factory=Machine)
    outcomes: dict[str, list[Event]] = field(default_factory=dict)
    """Possible outcomes of the running action, by slot; a slot has one task at a time."""
    alive: bool = False

    def handle(self, event: Event) -> None:
        """Pass an event to the machine and perform its actions."""
        self.machine, actions = step(self.machine, event)
        for action in actions:
            self.perform(action)
        if not m.is_loading(self.machine):
            self.outcomes.pop("queue", None)

    def perform(self, action: Action) -> None:
        """Begin an action, or cancel one."""
        if action is Action.LAUNCH:
            assert not self.alive, "two processes"
            outcomes: list[Event] = [e.Launched(1), e.LaunchFailed("no such program"), e.LaunchHung("no response")]
            self.outcomes["process"] = outcomes
        elif action is Action.PROBE:
            self.outcomes["probe"] = [e.Ready(), e.StartTimedOut("late")]
        elif action is Action.PROBE_ADOPTED:
            self.outcomes["probe"] = [e.Ready(), e.AdoptionFailed("not it")]
        elif action is Action.PROBE_LIVENESS:
            self.outcomes["probe"] = [e.Hung("hung")]
        elif action is Action.QUEUE:
            self.outcomes["queue"] = [e.StartAllowed()]
        elif action is Action.RETRY:
            self.outcomes["retry"] = [e.Retry()]
        elif action is Action.WITHDRAW:
            self.outcomes["withdraw"] = [e.Withdrawn()]
        elif action in {Action.TERMINATE, Action.KILL}:
            self.outcomes["end"] = [e.Gone()]
        else:
            self.outcomes.pop(CANCELLED[action], None)

    def finish(self, slot: str, choice: int) -> None:
        """End the action in the slot with one of its outcomes."""
        options = self.outcomes.pop(slot)
        event = options[choice % len(options)]
        if isinstance(event, e.Launched):
            self.alive = True
            self.outcomes["process"] = [e.Exited("exited with code 1")]
        if isinstance(event, e.Gone):
            self.alive = False
            self.outcomes.pop("process", None)
        self.handle(event)

    def drain(self) -> None:
        """End all actions successfully, without a failure or a crash."""
        while slots := [slot for slot in self.outcomes if not isinstance(self.outcomes[slot][0], e.Exited | e.Hung)]:
            self.finish(slots[0], 0)

    def play(self, moves: list[Event | tuple[int, int]]) -> None:
        """Handle commands, and finish actions by (slot, outcome) numbers."""
        for move in moves:
            if not isinstance(move, tuple):
                self.handle(move)
            elif self.outcomes:
                self.finish(sorted(self.outcomes)[move[0] % len(self.outcomes)], move[1])


def controller_of(*, heavy: bool, orphan: e.AdoptionState | None) -> FakeController:
    """Return a controller without a process, or with one that an earlier agent left."""
    controller = FakeController(Machine(heavy=heavy, should_run=orphan is not None))
    if orphan:
        controller.alive = True
        controller.outcomes["process"] = [e.Exited("ended")]
        controller.handle(e.Adopted(1, orphan))
    return controller


commands = st.sampled_from([e.Start(), e.Stop(), e.Restart()])
revisions = st.builds(e.Revised, heavy=st.booleans())
moves = st.lists(st.one_of(commands, revisions, st.tuples(st.integers(0, 4), st.integers(0, 2))), max_size=30)
controllers = st.builds(controller_of, heavy=st.booleans(), orphan=st.none() | st.sampled_from(e.AdoptionState))


@given(controllers, moves, commands)
def test_whatever_happens_the_last_command_wins(
    controller: FakeController, sequence: list[Event | tuple[int, int]], last: Event
) -> None:
    controller.play(sequence)
    # A service that was restarted after a crash keeps its error: a start does nothing then.
    seen = (
        controller.machine.last_error if controller.machine.state == "Running" and isinstance(last, e.Start) else None
    )
    controller.handle(last)
    controller.drain()
    if isinstance(last, e.Stop):
        assert controller.machine == Machine(heavy=controller.machine.heavy, restarts=controller.machine.restarts)
        assert not controller.alive
    else:
        assert (controller.machine.state, controller.alive, controller.machine.last_error) == ("Running", True, seen)


@given(controllers, moves)
def test_only_a_running_service_has_a_process_in_the_end(
    controller: FakeController, sequence: list[Event | tuple[int, int]]
) -> None:
    controller.play(sequence)
    controller.drain()
    assert m.is_settled(controller.machine)
    assert not m.is_loading(controller.machine)
    assert controller.alive == (controller.machine.state == "Running")
    assert (controller.machine.state == "Running") == controller.machine.should_run
