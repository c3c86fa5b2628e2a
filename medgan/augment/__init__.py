"""The augmentation module: sample, select, mix, audit, and ask whether it helped."""

__all__: list[str] = []
