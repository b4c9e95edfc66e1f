"""Training on several machines: the rows are shared out by time, XGBoost adds their histograms up.

``train_on_ray`` is ``gpuscalp train --workers N``. docs/distributed.md tells what may differ from a training
on one machine. Ray is imported when it is needed, not with this package.
"""

from gpuscalp.distributed.run import train_on_ray

__all__ = ["train_on_ray"]
