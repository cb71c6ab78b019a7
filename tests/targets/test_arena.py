import numpy as np
import pytest

from kprune.litefile import Operator, Subgraph, Tensor
from kprune.targets.arena import Buffer, plan_arena


def graph_of(tensors, *nodes):
    """A subgraph; each node is a name, indices of inputs and of outputs, subgraphs."""
    operators = [
        Operator(
            name,
            tuple(None if i is None else tensors[i] for i in inputs),
            tuple(tensors[i] for i in outputs),
            subgraphs=subgraphs,
        )
        for name, inputs, outputs, *subgraphs in nodes
    ]
    return Subgraph(tuple(tensors), tuple(operators), tensors[:1], tensors[-1:])


def int8(*sizes):
    return [Tensor(f"t{i}", "int8", (1, size)) for i, size in enumerate(sizes)]


def chain(*sizes):
    """A subgraph of operators one after the other, with outputs of these bytes."""
    nodes = [("RELU", (i,), (i + 1,)) for i in range(len(sizes) - 1)]
    return graph_of(int8(*sizes), *nodes)


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
    first, second = ("RELU", (0,), (1,)), ("RELU", (1,), (2,))

    plan = plan_arena([graph_of(int8(*[32] * 4), first, second, ("ADD", (2, 0), (3,)))])

    assert {b.name: (b.first, b.last) for b in plan.buffers}["t0"] == (0, 3)
    # t0, t1 and t2 at step 2; t3 takes the place of t1.
    assert plan.planned_bytes == 96


def test_constants_variables_and_inputs_left_out_take_no_place():
    tensors = [
        Tensor("x", "float32", (1, 4)),
        Tensor("w", "float32", (4, 4), stored=np.zeros(64, "uint8")),
        Tensor("state", "float32", (1, 4), is_variable=True),
        Tensor("y", "float32", (1, 4)),
    ]

    plan = plan_arena([graph_of(tensors, ("FULLY_CONNECTED", (0, 1, None, 2), (3,)))])

    assert {buffer.name for buffer in plan.buffers} == {"x", "y"}


def test_a_subgraph_lives_while_its_operator_runs():
    call = ("IF", (1,), (2,), 1, 2)
    main = graph_of(int8(16, 16, 16), ("RELU", (0,), (1,)), call)

    plan = plan_arena([main, chain(64, 64), chain(32, 32)])

    # The two buffers of the first branch, the input of the second, which comes next,
    # and input and output of IF.
    assert plan.peak_bytes == plan.planned_bytes == 64 + 64 + 32 + 16 + 16


def test_subgraphs_that_run_themselves_are_refused():
    loop = graph_of(int8(16), ("WHILE", (0,), (0,), 0))

    with pytest.raises(ValueError, match="Subgraph 0 of the TFLite file runs itself"):
        plan_arena([loop])


def test_subgraphs_that_double_the_steps_again_and_again_are_refused():
    graphs = [graph_of(int8(16), ("WHILE", (0,), (0,), i, i)) for i in range(1, 40)]

    with pytest.raises(ValueError, match="40 subgraphs .* more than 100,000 steps"):
        plan_arena([*graphs, chain(16, 16)])


@pytest.mark.parametrize("seed", range(5))
def test_buffers_that_live_together_never_overlap(seed):
    rng = np.random.default_rng(seed)
    tensors = int8(*rng.integers(1, 300, 12))
    nodes = [("ADD", (int(rng.integers(0, i + 1)), i), (i + 1,)) for i in range(11)]

    plan = plan_arena([graph_of(tensors, *nodes)])

    assert len(plan.buffers) == 12
    assert plan.planned_bytes >= plan.peak_bytes
    for i, a in enumerate(plan.buffers):
        for b in plan.buffers[:i]:
            if a.first <= b.last and b.first <= a.last:
                apart = a.offset + a.bytes <= b.offset or b.offset + b.bytes <= a.offset
                assert apart
