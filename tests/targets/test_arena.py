import numpy as np
import pytest

from kprune.targets.arena import Buffer, plan_arena
from kprune.targets.tflite_file import Operator, Subgraph, Tensor


def chain(*sizes):
    """A subgraph of operators one after the other, with outputs of these bytes."""
    tensors = [Tensor(f"t{i}", "INT8", (1, size)) for i, size in enumerate(sizes)]
    operators = [Operator("RELU", False, (i,), (i + 1,)) for i in range(len(sizes) - 1)]
    return Subgraph(tensors, operators, (0,), (len(sizes) - 1,))


def test_a_chain_is_planned_as_by_hand():
    plan = plan_arena([chain(96, 32, 64, 16)])

    # t0 lives in steps 0 to 1, t1 in 1 to 2, t2 in 2 to 3, t3 in 3. The largest goes
    # to 0, so does the next, which it does not meet; t1 meets both and goes above t0,
    # t3 meets t2 alone.
    assert plan.buffers == (
        Buffer("t0", 96, 0, 1, 0),
        Buffer("t2", 64, 2, 3, 0),
        Buffer("t1", 32, 1, 2, 96),
        Buffer("t3", 16, 3, 3, 64),
    )
    assert plan.planned_bytes == plan.peak_bytes == 128


def test_sizes_are_rounded_up_to_sixteen():
    plan = plan_arena([chain(1, 17)])

    assert [buffer.bytes for buffer in plan.buffers] == [32, 16]
    assert plan.planned_bytes == 48


def test_a_value_that_is_read_late_keeps_its_place():
    graph = chain(32, 32, 32)
    late = Operator("ADD", False, (2, 0), (3,))
    tensors = [*graph.tensors, Tensor("t3", "INT8", (1, 32))]

    plan = plan_arena([Subgraph(tensors, [*graph.operators, late], (0,), (3,))])

    assert {b.name: (b.first, b.last) for b in plan.buffers}["t0"] == (0, 3)
    # t0, t1 and t2 at step 2; t3 takes the place of t1.
    assert plan.planned_bytes == 96


def test_constants_variables_and_inputs_left_out_take_no_place():
    tensors = [
        Tensor("x", "FLOAT32", (1, 4)),
        Tensor("w", "FLOAT32", (4, 4), is_constant=True),
        Tensor("state", "FLOAT32", (1, 4), is_variable=True),
        Tensor("y", "FLOAT32", (1, 4)),
    ]
    operator = Operator("FULLY_CONNECTED", False, (0, 1, -1, 2), (3,))

    plan = plan_arena([Subgraph(tensors, [operator], (0,), (3,))])

    assert {buffer.name for buffer in plan.buffers} == {"x", "y"}


def test_a_subgraph_lives_while_its_operator_runs():
    main = chain(16, 16, 16)
    call = Operator("IF", False, (1,), (2,), subgraphs=(1, 2))
    main = Subgraph(main.tensors, [main.operators[0], call], (0,), (2,))

    plan = plan_arena([main, chain(64, 64), chain(32, 32)])

    # The two buffers of the first branch, the input of the second, which comes next,
    # and input and output of IF.
    assert plan.peak_bytes == plan.planned_bytes == 64 + 64 + 32 + 16 + 16


def test_subgraphs_that_run_themselves_are_refused():
    loop = Operator("WHILE", False, (0,), (0,), subgraphs=(0,))

    with pytest.raises(ValueError, match="Subgraph 0 of the TFLite file runs itself"):
        plan_arena([Subgraph(chain(16).tensors, [loop], (0,), (0,))])


@pytest.mark.parametrize("seed", range(5))
def test_buffers_that_live_together_never_overlap(seed):
    rng = np.random.default_rng(seed)
    graph = chain(*rng.integers(1, 300, 12))
    extra = [
        Operator("ADD", False, (int(rng.integers(0, i + 1)), i), (i + 1,))
        for i in range(11)
    ]

    plan = plan_arena([Subgraph(graph.tensors, extra, (0,), (11,))])

    assert len(plan.buffers) == 12
    assert plan.planned_bytes >= plan.peak_bytes
    for i, a in enumerate(plan.buffers):
        for b in plan.buffers[:i]:
            if a.first <= b.last and b.first <= a.last:
                apart = a.offset + a.bytes <= b.offset or b.offset + b.bytes <= a.offset
                assert apart
