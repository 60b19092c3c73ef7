from __future__ import annotations


class TaskExam:
    pass
