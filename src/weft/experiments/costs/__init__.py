"""What an experiment costs: operations, bytes and seconds of every run, and how long so many workers take.

    sizes.py         a base model's sizes, and the operations of a row; pure
    texts.py         rows and lengths of tasks, from a sample of their rows
    learners.py      what runs train, read off their methods
    passes.py        passes of rows through the model; pure
    before.py        what runs find read or set up by those before them
    work.py          what a run computes and keeps
    machine.py       what a machine was measured to do, and its file
    timing.py        steps and passes, timed
    measuring.py     that measurement, of a base model
    schedule.py      orders on workers; pure
    plan.py          all of it for an experiment

Operations are counted, seconds are measured: no rate stands in the code.
"""
