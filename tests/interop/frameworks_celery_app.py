"""The tasks of frameworks_celery, for the worker and for who asks it.

CELERY_RESULTS says where results go; CELERY_FOLDER is the folder that serves as a broker.
"""

from __future__ import annotations

import os

from celery import Celery, chord

folder = os.environ["CELERY_FOLDER"]
app = Celery("frameworks", broker="filesystem://", backend=os.environ["CELERY_RESULTS"])
app.conf.broker_transport_options = {
    "data_folder_in": folder,
    "data_folder_out": folder,
    "control_folder": os.path.join(folder, "control"),
    "polling_interval": 0.01,
}
app.conf.result_expires = 1000


@app.task
def add(number: int, other: int) -> int:
    return number + other


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def fail() -> None:
    raise ValueError("as it should")


@app.task
def start_chord() -> None:
    """Start one whose result nobody waits for."""
    chord([add.s(number, number) for number in range(3)], total.s()).delay()
