"""Train the network and write outputs/metrics.json and outputs/model.pt."""

import argparse
import json
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from torch_train.data import Batch, batches, load_data

OUTPUTS = Path("outputs")


def make_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 4 * 4, 10),
    )


def train_epoch(
    network: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader[Batch], device: torch.device
) -> float:
    """Go through the data once and return the mean loss of the batches."""
    network.train()
    total = 0.0
    for images, labels in loader:
        loss = nn.functional.cross_entropy(network(images.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(loader)


@torch.inference_mode()
def accuracy(network: nn.Module, loader: DataLoader[Batch], device: torch.device) -> float:
    network.eval()
    right = seen = 0
    for images, labels in loader:
        right += int((network(images.to(device)).argmax(dim=1) == labels.to(device)).sum())
        seen += len(labels)
    return right / seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2, help="processes that prepare batches")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, test = (batches(part, arguments.seed, workers=arguments.workers) for part in load_data(arguments.seed))
    network = make_network().to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for epoch in range(1, arguments.epochs + 1):
        loss = train_epoch(network, optimizer, train, device)
        print(f"epoch {epoch}: loss {loss:.3f}", flush=True)

    metrics = {"accuracy": accuracy(network, test, device), "device": device.type, "torch": torch.__version__}
    OUTPUTS.mkdir(exist_ok=True)
    torch.save(network.state_dict(), OUTPUTS / "model.pt")
    (OUTPUTS / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"accuracy {metrics['accuracy']:.3f} on {device.type}")


if __name__ == "__main__":
    main()
