"""Serve the model of ../sklearn-train: GET /health, POST /predict."""

import os
import sys
from pathlib import Path
from typing import Annotated

import joblib
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field
from sklearn.pipeline import Pipeline

MODEL = Path("models/model.joblib")

Pixel = Annotated[float, Field(ge=0, le=16)]
Image = Annotated[list[Pixel], Field(min_length=64, max_length=64)]


class Request(BaseModel):
    """Images of 8 x 8 pixels, row by row, 0 is white and 16 is black."""

    images: Annotated[list[Image], Field(min_length=1, max_length=1000)]


class Prediction(BaseModel):
    digit: int
    probability: float


class Answer(BaseModel):
    predictions: list[Prediction]


def load_model(path: Path) -> Pipeline:
    """Return the model. Loading runs code that the file contains: serve only models of your own."""
    if not path.is_file():
        how = "cp ../sklearn-train/outputs/model.joblib models/"
        sys.exit(f"no model at {path}: train one in ../sklearn-train, then {how}")
    return joblib.load(path)


def create_app(model: Pipeline) -> FastAPI:
    app = FastAPI(title="digits")

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/predict")
    def predict(request: Request) -> Answer:
        rows = model.predict_proba(request.images)
        return Answer(predictions=[Prediction(digit=row.argmax(), probability=row.max()) for row in rows])

    return app


if __name__ == "__main__":
    uvicorn.run(create_app(load_model(MODEL)), host=os.environ["HOST"], port=int(os.environ["PORT"]))
