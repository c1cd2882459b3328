"""From a task's rows to the batch of a step: which rows, their tokens, the draw. No model is needed here."""
