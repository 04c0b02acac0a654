"""Train a classifier of handwritten digits; metrics and the model land in outputs/."""

import argparse
import json
from pathlib import Path

import joblib
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

OUTPUTS = Path("outputs")
SEED = 0


def train(regularization: float) -> tuple[Pipeline, dict[str, float]]:
    """Return the fitted model and how well it does on images it has not seen."""
    images, digits = load_digits(return_X_y=True)
    seen, unseen, seen_digits, unseen_digits = train_test_split(
        images, digits, test_size=0.25, random_state=SEED, stratify=digits
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(C=regularization, max_iter=1000, random_state=SEED))
    model.fit(seen, seen_digits)
    predicted = model.predict(unseen)
    return model, {
        "accuracy": float(accuracy_score(unseen_digits, predicted)),
        "f1": float(f1_score(unseen_digits, predicted, average="macro")),
        "trained_on": len(seen),
        "tested_on": len(unseen),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--regularization", type=float, default=0.1, metavar="C", help="inverse strength")
    arguments = parser.parse_args()

    model, metrics = train(arguments.regularization)
    OUTPUTS.mkdir(exist_ok=True)
    joblib.dump(model, OUTPUTS / "model.joblib")
    (OUTPUTS / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"accuracy {metrics['accuracy']:.3f} on {metrics['tested_on']} images")


if __name__ == "__main__":
    main()
