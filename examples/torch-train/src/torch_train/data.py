"""The digits that scikit-learn ships, as batches."""

import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split

Batch = tuple[torch.Tensor, torch.Tensor]


def load_data(seed: int) -> tuple[Dataset[Batch], Dataset[Batch]]:
    """Return the images to train on and those to test on; the same ones for the same seed."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    train, test = random_split(TensorDataset(images, labels), [0.8, 0.2], torch.Generator().manual_seed(seed))
    return train, test


def batches(data: Dataset[Batch], seed: int, *, workers: int) -> DataLoader[Batch]:
    """Return shuffled batches that worker processes prepare; they come through /dev/shm."""
    return DataLoader(
        data,
        batch_size=64,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),
    )
