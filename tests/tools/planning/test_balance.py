"""Which replica a call goes to: the orchestrator's rule, found faster."""

from hypothesis import given
from hypothesis import strategies as st
from muse.base.v1.base_pb2 import GenerateRequest as BaseRequest
from muse.common.v1.decoding_pb2 import Sampling
from muse.text_encoder.v1.text_encoder_pb2 import EncodeRequest

from services.orchestrator.replicas.work import work_of
from tools.planning.balance import Balance
from tools.planning.demand import Work

REPLICAS = 5


@given(
    st.lists(
        st.tuples(st.sampled_from(["call", "end", "lose", "gain"]), st.integers(0, 40)),
        max_size=300,
    )
)
def test_it_is_the_one_with_the_least_outstanding_whose_turn_is_longest_ago(
    happenings: list[tuple[str, int]],
) -> None:
    order = [3, 0, 4, 1, 2]
    balance = Balance(order)
    outstanding, chosen = [0] * REPLICAS, [order.index(each) - 9 for each in range(REPLICAS)]
    up, calls, turn = set(range(REPLICAS)), [], 0
    for what, number in happenings:
        replica = number % REPLICAS
        if what == "call":
            expected = min(
                up, key=lambda each: (outstanding[each], chosen[each], each), default=None
            )
            assert balance.choose(number + 1) == expected
            if expected is not None:
                turn += 1
                outstanding[expected] += number + 1
                chosen[expected] = turn
                calls.append((expected, number + 1))
        elif what == "end" and calls:
            ended, work = calls.pop(number % len(calls))
            outstanding[ended] -= work
            balance.end(ended, work)
        elif what == "lose" and replica in up:
            up.remove(replica)
            balance.lose(replica)
        elif what == "gain" and replica not in up:
            up.add(replica)
            chosen[replica] = 0
            balance.gain(replica)


def test_work_is_counted_as_the_orchestrator_counts_it() -> None:
    for guidance_scale in (0.0, 4.0):
        sampling = Sampling(steps=24, guidance_scale=guidance_scale)
        ours = Work(amounts={"base": 24, "text_encoder": 2}, guided=guidance_scale > 0)
        assert ours.call_of("base")[2] == work_of(BaseRequest(sampling=sampling))
        assert ours.call_of("text_encoder")[2] == work_of(EncodeRequest(texts=["a", "b"]))
