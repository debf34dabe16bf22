"""mixcli: mixed-sample augmentation of image classifiers, from training to an honest table."""

__version__ = "0.1.0"
