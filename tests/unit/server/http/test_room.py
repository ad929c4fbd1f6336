"""Who goes when there is no room: nobody has to be looked for."""

from __future__ import annotations

from dataclasses import dataclass

from safelight.server.http.room import Room


@dataclass(eq=False)
class Someone:
    has_request: bool = False
    is_unheard: bool = False
    pace: float | None = None
    num_looks: int = 0

    def look(self, now: float) -> float:
        self.num_looks += 1
        return now

    def rank(self, _now: float) -> tuple[bool, float, float] | None:
        self.num_looks += 1
        return None if self.pace is None else (False, self.pace, 0.0)


def room_of(*occupants: Someone) -> Room:
    room = Room()
    for each in occupants:
        room.add(each)
        room.note(each)
    return room


def test_who_has_been_silent_for_longest_goes_without_a_look_at_the_others() -> None:
    silent = [Someone() for _ in range(1000)]
    room = room_of(*silent)
    silent[0].has_request = True
    room.note(silent[0])

    gone = []
    while (each := room.least_missed(0.0)) is not None:
        gone.append(each)
        room.discard(each)

    assert gone == silent[1:]
    assert room.num_requests == 1
    assert sum(each.num_looks for each in silent[1:]) == 0


def test_the_slowest_go_first_and_are_looked_for_once() -> None:
    slow = [Someone(has_request=True, pace=float(pace)) for pace in (3, 1, 2)]
    busy = [Someone(has_request=True) for _ in range(1000)]
    room = room_of(*busy, *slow)

    gone = []
    for _ in range(1000):
        if (each := room.least_missed(0.0)) is not None:
            gone.append(each)
            room.discard(each)

    assert gone == [slow[1], slow[2], slow[0]]
    assert max(each.num_looks for each in busy) <= 2


def test_who_gets_on_meanwhile_does_not_go() -> None:
    first, second = Someone(has_request=True, pace=1.0), Someone(has_request=True, pace=2.0)
    room = room_of(first, second)
    assert room.slowest(0.0) is first
    second.pace = None

    assert room.slowest(0.0) is None


def test_nobody_goes_who_has_spoken_and_was_not_heard_yet() -> None:
    spoken = [Someone(is_unheard=True) for _ in range(10)]
    silent = Someone()
    room = room_of(*spoken, silent)

    assert room.least_missed(0.0) is silent
    room.discard(silent)
    assert room.least_missed(0.0) is None
