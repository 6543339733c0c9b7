"""Slots that are lent to choices: no more than are free, and back as soon as a choice ends."""

from __future__ import annotations

import asyncio
import random

from consumers.slots import ResponseSlots, SpareSlots


class Worker:
    """So many slots; a response each takes one of its own."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.returned = 0
        self.responses: list[ResponseSlots] = []
        self.spare = SpareSlots(self._count)

    def _count(self) -> None:
        self.returned += 1

    @property
    def free(self) -> int:
        return self.capacity - len(self.responses) - self.spare.lent

    def start(self, choices: int) -> ResponseSlots:
        self.responses.append(self.spare.open(choices))
        return self.responses[-1]

    def end(self, response: ResponseSlots) -> None:
        self.responses.remove(response)
        response.close()

    def lend(self) -> None:
        self.spare.lend(self.free)


async def runs(response: ResponseSlots) -> bool:
    """A choice of it found a slot at once."""
    try:
        async with asyncio.timeout(0):
            await response.take()
    except TimeoutError:
        return False
    return True


async def test_the_own_slot_serves_the_first_choice_and_others_need_free_ones() -> None:
    worker = Worker(3)
    response = worker.start(4)
    assert await runs(response)
    assert not await runs(response)
    assert response.wanted == 3
    worker.lend()
    assert (worker.free, response.wanted) == (0, 1)
    assert await runs(response)
    assert await runs(response)
    assert not await runs(response)


async def test_a_slot_comes_back_when_a_choice_ends_and_is_free_for_others() -> None:
    worker = Worker(2)
    response = worker.start(4)
    worker.lend()
    assert await runs(response)
    assert await runs(response)
    response.leave()
    assert (worker.free, worker.returned) == (1, 1)
    assert not await runs(response), "the next look at the queue comes first"
    response.leave()
    assert worker.free == 1, "nothing is borrowed any more"
    assert await runs(response), "on its own slot"
    worker.lend()
    assert await runs(response)


async def test_one_choice_waits_until_a_slot_is_lent() -> None:
    worker = Worker(2)
    response = worker.start(2)
    assert await runs(response)
    waiting = asyncio.create_task(response.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    worker.lend()
    await waiting


async def test_what_is_lent_goes_round_among_responses_and_none_gets_more_than_it_wants() -> None:
    worker = Worker(9)
    few, many = worker.start(2), worker.start(100)
    worker.start(1)
    worker.lend()
    assert worker.free == 0
    assert (few.wanted, many.wanted) == (0, 100 - 1 - 5)


async def test_what_is_not_needed_goes_back() -> None:
    worker = Worker(8)
    response = worker.start(8)
    worker.lend()
    assert worker.free == 0
    response.expect(2)  # the others had ended before this worker took it over
    assert worker.free == 6
    response.expect(0)
    assert worker.free == 7
    worker.end(response)
    assert worker.free == 8
    assert not worker.spare.are_wanted


async def test_a_response_that_is_over_gives_everything_back_whatever_runs() -> None:
    worker = Worker(4)
    response = worker.start(9)
    worker.lend()
    for _ in range(4):
        assert await runs(response)
    assert worker.spare.are_wanted
    worker.end(response)
    assert (worker.free, worker.spare.lent, worker.spare.are_wanted) == (4, 0, False)


async def test_in_any_order_of_events_there_are_never_more_generations_than_slots() -> None:
    chance = random.Random(3)
    worker = Worker(5)
    running: dict[ResponseSlots, int] = {}
    left: dict[ResponseSlots, int] = {}
    ended = 0
    for _ in range(5_000):
        step = chance.choice(["start", "lend", "take", "leave"])
        if step == "start" and worker.free > 0:
            choices = chance.choice([1, 2, 7])
            response = worker.start(choices)
            running[response], left[response] = 0, choices
        elif step == "lend":
            worker.lend()
        elif running:
            response = chance.choice(list(running))
            if step == "take" and left[response] and await runs(response):
                running[response] += 1
                left[response] -= 1
            elif step == "leave" and running[response]:
                response.leave()
                running[response] -= 1
                if not running[response] and not left[response]:
                    worker.end(response)
                    del running[response], left[response]
                    ended += 1
        assert worker.free >= 0
        assert sum(running.values()) <= worker.capacity
        assert all(count <= 1 or worker.spare.lent for count in running.values())
    assert ended > 100
