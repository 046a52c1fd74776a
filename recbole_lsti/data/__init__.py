"""Data sets that gather history windows when a batch asks for them, and the loaders that batch them."""

from recbole_lsti.data.dataset import LSTIDataset, create_dataset, dataset_class

__all__ = ["LSTIDataset", "create_dataset", "dataset_class"]
