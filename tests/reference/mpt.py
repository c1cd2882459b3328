"""Multitask prompt tuning once more: slow, in NumPy float64 and plain loops, with nothing taken from weft."""

import numpy as np

IGNORE = -100


def compose(shared, u, v):
    """`P_k[p, d] = P*[p, d] * sum_r u_k[p, r] v_k[r, d]`, entry by entry; `[K, P, D]`."""
    tasks, length, rank = u.shape
    width = v.shape[2]
    prompts = np.zeros((tasks, length, width))
    for k in range(tasks):
        for p in range(length):
            for d in range(width):
                weight = sum(float(u[k, p, r]) * float(v[k, r, d]) for r in range(rank))
                prompts[k, p, d] = float(shared[p, d]) * weight
    return prompts


def log_softmax(logits):
    """Log-probabilities of one row of logits."""
    logits = np.asarray(logits, dtype=np.float64)
    top = logits.max()
    return logits - top - np.log(np.exp(logits - top).sum())


def cross_entropy_sum(logits, labels):
    """Minus the log-probability of every label that is not -100, summed."""
    total = 0.0
    for row in range(len(labels)):
        for t, label in enumerate(labels[row]):
            if label != IGNORE:
                total -= log_softmax(logits[row][t])[label]
    return total


def kl_sum(student, teacher, labels, temperature=1.0):
    """`T^2 sum_w p_teacher(w) log(p_teacher(w) / p_student(w))`, summed over target positions."""
    total = 0.0
    for row in range(len(labels)):
        for t, label in enumerate(labels[row]):
            if label == IGNORE:
                continue
            log_p = log_softmax(np.asarray(teacher[row][t], dtype=np.float64) / temperature)
            log_q = log_softmax(np.asarray(student[row][t], dtype=np.float64) / temperature)
            total += sum(np.exp(lp) * (lp - lq) for lp, lq in zip(log_p, log_q, strict=True))
    return total * temperature**2


def hidden_sum(student, teacher, mask):
    """Each row's mean squared distance over its counted positions and all D entries, summed over rows."""
    total = 0.0
    for row in range(len(mask)):
        squares = [
            (float(student[row][n][d]) - float(teacher[row][n][d])) ** 2
            for n in range(len(mask[row]))
            if mask[row][n]
            for d in range(len(student[row][n]))
        ]
        total += sum(squares) / len(squares)
    return total


def truncated_svd(matrix, rank):
    """The nearest matrix of a rank."""
    left, sizes, right = np.linalg.svd(np.asarray(matrix, dtype=np.float64), full_matrices=False)
    return sum(sizes[r] * np.outer(left[:, r], right[r]) for r in range(rank))


def numeric_gradient(function, x, step=1e-5):
    """Central differences of a function of one array."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[index] += step
        behind[index] -= step
        gradient[index] = (function(ahead) - function(behind)) / (2 * step)
    return gradient


def constrained_log_prob(next_logits, choices, choice):
    """Log-probability of a choice when the writer may write nothing but choices.

    Token by token: of all tokens by which a choice that is still possible goes on, the model's logits
    decide by a softmax over these tokens alone. `next_logits` maps the tokens written so far to logits.
    """
    total, possible = 0.0, list(choices)
    for i, token in enumerate(choice):
        allowed = sorted({one[i] for one in possible if len(one) > i})
        if len(allowed) > 1:
            logits = np.asarray(next_logits(choice[:i]), dtype=np.float64)
            total += log_softmax(logits[allowed])[allowed.index(token)]
        possible = [one for one in possible if len(one) > i and one[i] == token]
    return total
