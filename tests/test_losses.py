"""Losses against plain float64 loops, their gradients against central differences, and their properties."""

import numpy as np
import pytest
import torch
from reference import mpt as reference

from weft.data.batch import IGNORE, Encoded, collate
from weft.losses.terms import hidden_distillation_sum, lm_loss_sum, logit_distillation_sum
from weft.prompts.bank import compose

B, T, V, N, D = 3, 4, 7, 5, 6
LABELS = torch.tensor([[3, 1, IGNORE, IGNORE], [0, 6, 2, 5], [4, IGNORE, IGNORE, IGNORE]])
MASK = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]).bool()


@pytest.fixture
def logits():
    """Logits of a student and a teacher."""
    draw = torch.Generator().manual_seed(1)
    return 2 * torch.randn(B, T, V, generator=draw), 2 * torch.randn(B, T, V, generator=draw)


@pytest.fixture
def hidden():
    """Hidden states of a student and a teacher."""
    draw = torch.Generator().manual_seed(2)
    return torch.randn(B, N, D, generator=draw), torch.randn(B, N, D, generator=draw)


def lm(logits):
    """The language-model loss of the labels above."""
    return lm_loss_sum(logits, LABELS)


def near(value):
    """Within float32 of a float64 value."""
    return pytest.approx(value, rel=1e-5)


# values


def test_lm_loss_equals_loops(logits):
    """The sum over targets of minus the log-probability of the label."""
    assert lm(logits[0]).item() == near(reference.cross_entropy_sum(logits[0].numpy(), LABELS.tolist()))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_logit_distillation_equals_loops(logits, temperature):
    """The sum over targets of T^2 KL(teacher || student), at several temperatures."""
    student, teacher = logits
    expected = reference.kl_sum(student.numpy(), teacher.numpy(), LABELS.tolist(), temperature)
    assert logit_distillation_sum(student, teacher, LABELS, temperature).item() == near(expected)


def test_hidden_distillation_equals_loops(hidden):
    """The sum over rows of the mean squared distance at counted positions."""
    student, teacher = hidden
    expected = reference.hidden_sum(student.numpy(), teacher.numpy(), MASK.tolist())
    assert hidden_distillation_sum(student, teacher, MASK).item() == near(expected)


def test_lm_loss_of_uniform_logits_is_the_logarithm_of_the_vocabulary():
    """Each of the seven targets costs log V."""
    assert lm(torch.zeros(B, T, V)).item() == near(7 * np.log(V))


def test_a_distribution_is_at_no_distance_from_itself(logits):
    """KL(p || p) = 0, also where logits differ by a constant."""
    student = logits[0]
    assert logit_distillation_sum(student, student, LABELS).item() == 0
    assert logit_distillation_sum(student, student + 5, LABELS).item() == pytest.approx(0, abs=1e-5)


def test_distillation_is_positive_and_knows_its_direction(logits):
    """KL is positive, and KL(teacher || student) is not KL(student || teacher)."""
    student, teacher = logits
    ahead = logit_distillation_sum(student, teacher, LABELS).item()
    back = logit_distillation_sum(teacher, student, LABELS).item()
    assert ahead > 0
    assert abs(ahead - back) > 1e-3


def test_hidden_states_are_at_no_distance_from_themselves(hidden):
    """The distance of equal states is 0."""
    assert hidden_distillation_sum(hidden[0], hidden[0].clone(), MASK).item() == 0


def test_hidden_distance_of_one_everywhere_is_one_a_row(hidden):
    """States that differ by one in every entry give one for every row, however many positions count."""
    student = hidden[0]
    assert hidden_distillation_sum(student, student + 1, MASK).item() == near(B)


def test_temperature_times_its_square_keeps_the_gradients_size(logits):
    """Scaling both logits by T undoes the temperature but for the factor T^2."""
    student, teacher = logits
    plain = logit_distillation_sum(student, teacher, LABELS).item()
    assert logit_distillation_sum(3 * student, 3 * teacher, LABELS, 3.0).item() == near(9 * plain)


def test_losses_are_sums_over_rows(logits, hidden):
    """A batch's value is the sum of its rows' values."""
    for loss, parts in (
        (lm_loss_sum, (logits[0], LABELS)),
        (logit_distillation_sum, (*logits, LABELS)),
        (hidden_distillation_sum, (*hidden, MASK)),
    ):
        alone = sum(loss(*(part[i : i + 1] for part in parts)).item() for i in range(B))
        assert loss(*parts).item() == near(alone)


def test_lm_loss_does_not_overflow():
    """Logits of a thousand give a finite loss."""
    logits = torch.zeros(1, 1, V)
    logits[..., 0] = 1000
    assert lm_loss_sum(logits, torch.tensor([[1]])).item() == near(1000)


def test_half_precision_is_summed_in_single(logits):
    """Logits in bfloat16 give the loss of the same numbers in float32, not a rounded one."""
    rough = logits[0].bfloat16()
    assert lm(rough).item() == near(reference.cross_entropy_sum(rough.double().numpy(), LABELS.tolist()))


# padding


def padded(tensor, columns, value):
    """The same rows with further columns."""
    return torch.cat([tensor, tensor.new_full((B, columns, *tensor.shape[2:]), value)], 1)


def test_padding_never_counts(logits, hidden):
    """Further columns, whatever they hold, change no loss."""
    labels, mask = padded(LABELS, 2, IGNORE), padded(MASK, 3, False)
    student, teacher = (padded(part, 2, 9.0) for part in logits)
    student[:, T:, 0] = -4
    assert lm_loss_sum(student, labels).item() == near(lm(logits[0]).item())
    assert logit_distillation_sum(student, teacher, labels).item() == near(
        logit_distillation_sum(*logits, LABELS).item()
    )
    longer = padded(hidden[0], 3, 9.0), padded(hidden[1], 3, -9.0)
    assert hidden_distillation_sum(*longer, mask).item() == near(
        hidden_distillation_sum(*hidden, MASK).item()
    )


def test_padding_that_is_no_number_leaves_losses_finite(logits, hidden):
    """NaN at positions that do not count reaches no loss."""
    student = padded(logits[0], 1, float("nan"))
    labels = padded(LABELS, 1, IGNORE)
    assert torch.isfinite(lm_loss_sum(student, labels))
    assert torch.isfinite(logit_distillation_sum(student, student, labels))
    states = padded(hidden[0], 1, float("nan")), padded(hidden[1], 1, 0.0)
    assert torch.isfinite(hidden_distillation_sum(*states, padded(MASK, 1, False)))


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_padding_that_is_no_number_leaves_gradients_finite(hidden, side):
    """NaN at positions that do not count, in student or teacher, reaches no gradient of the hidden loss."""
    bad = float("nan")
    student = padded(hidden[0], 1, bad if side == "student" else 0.0).requires_grad_()
    teacher = padded(hidden[1], 1, bad if side == "teacher" else 0.0)
    hidden_distillation_sum(student, teacher, padded(MASK, 1, False)).backward()
    assert torch.isfinite(student.grad).all()


def test_padding_has_no_gradient(logits, hidden):
    """Positions that do not count are not pulled anywhere."""
    student = logits[0].clone().requires_grad_()
    (lm(student) + logit_distillation_sum(student, logits[1], LABELS)).backward()
    assert (student.grad[LABELS == IGNORE] == 0).all()
    assert (student.grad[LABELS != IGNORE].abs().sum(-1) > 0).all()
    states = hidden[0].clone().requires_grad_()
    hidden_distillation_sum(states, hidden[1], MASK).backward()
    assert (states.grad[~MASK] == 0).all()
    assert (states.grad[MASK] != 0).all()


def test_a_row_without_a_counted_position_is_refused(hidden):
    """A mean over nothing is an error, not NaN."""
    mask = MASK.clone()
    mask[1] = False
    with pytest.raises(ValueError, match="no position"):
        hidden_distillation_sum(*hidden, mask)


# gradients


def test_no_gradient_reaches_the_teacher(logits, hidden):
    """Distillation moves the student alone."""
    student, teacher = (part.clone().requires_grad_() for part in logits)
    logit_distillation_sum(student, teacher, LABELS).backward()
    assert teacher.grad is None
    assert student.grad is not None
    ours, theirs = (part.clone().requires_grad_() for part in hidden)
    hidden_distillation_sum(ours, theirs, MASK).backward()
    assert theirs.grad is None
    assert ours.grad is not None


def test_gradient_of_lm_loss_equals_differences(logits):
    """The gradient is that of the reference, by central differences."""
    student = logits[0].clone().requires_grad_()
    lm(student).backward()
    expected = reference.numeric_gradient(
        lambda x: reference.cross_entropy_sum(x, LABELS.tolist()), logits[0].double().numpy()
    )
    np.testing.assert_allclose(student.grad.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_gradient_of_logit_distillation_equals_differences(logits, temperature):
    """The gradient in the student is that of the reference, by central differences."""
    student, teacher = logits[0].clone().requires_grad_(), logits[1]
    logit_distillation_sum(student, teacher, LABELS, temperature).backward()
    expected = reference.numeric_gradient(
        lambda x: reference.kl_sum(x, teacher.double().numpy(), LABELS.tolist(), temperature),
        logits[0].double().numpy(),
    )
    np.testing.assert_allclose(student.grad.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_gradient_of_hidden_distillation_equals_differences(hidden):
    """The gradient in the student is that of the reference, by central differences."""
    student, teacher = hidden[0].clone().requires_grad_(), hidden[1]
    hidden_distillation_sum(student, teacher, MASK).backward()
    expected = reference.numeric_gradient(
        lambda x: reference.hidden_sum(x, teacher.double().numpy(), MASK.tolist()), hidden[0].double().numpy()
    )
    np.testing.assert_allclose(student.grad.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2])
def test_gradient_of_composition_passes_gradcheck(rank):
    """PyTorch's own check, in float64, of P*, u and v."""
    draw = torch.Generator().manual_seed(3)
    shapes = [(3, 4), (2, 3, rank), (2, rank, 4)]
    parts = [torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_() for shape in shapes]
    assert torch.autograd.gradcheck(compose, parts)


@pytest.mark.parametrize("name", ["lm", "logits", "hidden"])
@pytest.mark.parametrize("part", [0, 1, 2], ids=["shared", "u", "v"])
def test_gradient_through_composition_and_loss_equals_differences(logits, hidden, name, part):
    """P*, u and v each get the gradient of the reference's composition and loss, by central differences."""
    draw = torch.Generator().manual_seed(3)
    shapes = [(N, D), (B, N, 1), (B, 1, D)] if name == "hidden" else [(T, V), (B, T, 1), (B, 1, V)]
    parts = [torch.randn(shape, generator=draw).requires_grad_() for shape in shapes]
    ours = {
        "lm": lm,
        "logits": lambda x: logit_distillation_sum(x, logits[1], LABELS, 2.0),
        "hidden": lambda x: hidden_distillation_sum(x, hidden[1], MASK),
    }
    theirs = {
        "lm": lambda x: reference.cross_entropy_sum(x, LABELS.tolist()),
        "logits": lambda x: reference.kl_sum(x, logits[1].double().numpy(), LABELS.tolist(), 2.0),
        "hidden": lambda x: reference.hidden_sum(x, hidden[1].double().numpy(), MASK.tolist()),
    }
    ours[name](compose(*parts)).backward()
    arrays = [one.detach().double().numpy() for one in parts]
    expected = reference.numeric_gradient(
        lambda x: theirs[name](reference.compose(*arrays[:part], x, *arrays[part + 1 :])), arrays[part]
    )
    np.testing.assert_allclose(parts[part].grad.numpy(), expected, rtol=1e-3, atol=1e-4)


# batches


def test_collate_pads_targets_on_the_right():
    """Labels are the targets, then -100; texts stay as they are."""
    batch = collate([Encoded((5, 6), (7, 1)), Encoded((8,), (1,)), Encoded((9, 9, 9), (2, 3, 1))], [1, 0, 1])
    assert batch.labels.tolist() == [[7, 1, IGNORE], [1, IGNORE, IGNORE], [2, 3, 1]]
    assert batch.sources == ((5, 6), (8,), (9, 9, 9))
    assert batch.task_ids.tolist() == [1, 0, 1]
    assert batch.target_tokens == 6


def test_collate_refuses_an_empty_target():
    """A row that would carry no loss is an error."""
    with pytest.raises(ValueError, match="no target token"):
        collate([Encoded((5,), (1,)), Encoded((5,), ())], [0, 0])


@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_split_keeps_rows_and_order(size):
    """The parts, put together, are the batch, and none is larger than asked for."""
    batch = collate([Encoded((i,), (i, 1)) for i in range(5)], [0, 1, 2, 1, 0])
    parts = batch.split(size)
    assert max(len(part.sources) for part in parts) <= size
    assert sum((part.sources for part in parts), ()) == batch.sources
    assert torch.equal(torch.cat([part.labels for part in parts]), batch.labels)
    assert torch.equal(torch.cat([part.task_ids for part in parts]), batch.task_ids)
    assert sum(part.target_tokens for part in parts) == batch.target_tokens
