"""Train the network on the digits that scikit-learn ships; write the weights and how good they are."""

import argparse
import json
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split


def digits() -> TensorDataset:
    """Return 1797 images (1 x 8 x 8, from 0 to 1) and their digits."""
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    return TensorDataset(pixels, torch.tensor(labels))


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 10),
    )


def loader(data: Dataset, *, shuffle: bool, workers: int, device: torch.device) -> DataLoader:
    # Workers hand batches over through /dev/shm.
    return DataLoader(
        data,
        batch_size=64,
        shuffle=shuffle,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )


def train_epoch(model: nn.Module, batches: DataLoader, optimizer: torch.optim.Optimizer, device: torch.device) -> float:
    """Learn from every batch once; return the mean loss."""
    model.train()
    losses = []
    for images, labels in batches:
        loss = nn.functional.cross_entropy(model(images.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.inference_mode()
def accuracy(model: nn.Module, batches: DataLoader, device: torch.device) -> float:
    model.eval()
    hits = total = 0
    for images, labels in batches:
        hits += (model(images.to(device)).argmax(dim=1).cpu() == labels).sum().item()
        total += len(labels)
    return hits / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--outputs", type=Path, default=Path("outputs"))
    args = parser.parse_args()

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    learn, test = random_split(digits(), [0.8, 0.2])
    model = network().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    batches = loader(learn, shuffle=True, workers=args.workers, device=device)
    for epoch in range(1, args.epochs + 1):
        print(f"epoch {epoch}: loss {train_epoch(model, batches, optimizer, device):.3f}", flush=True)

    score = accuracy(model, loader(test, shuffle=False, workers=args.workers, device=device), device)
    metrics = {"accuracy": round(score, 4), "epochs": args.epochs, "device": device.type, "torch": torch.__version__}
    args.outputs.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.outputs / "model.pt")
    (args.outputs / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
