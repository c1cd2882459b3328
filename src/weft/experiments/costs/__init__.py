"""What an experiment costs: operations, bytes and seconds of every run, and how long so many workers take.

    sizes.py         a base model's sizes, and the operations of a pass; pure
    texts.py         rows and lengths of tasks, from a sample of their rows
    work.py          what a run computes and keeps
    machine.py       what a machine was measured to do, and its file
    measuring.py     that measurement
    schedule.py      orders on workers; pure
    plan.py          all of it for an experiment

Operations are counted, seconds are measured: no rate stands in the code.
"""
