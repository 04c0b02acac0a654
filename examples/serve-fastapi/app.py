"""Serves the digits model that examples/sklearn-train writes: GET /health, POST /predict."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import joblib
from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

MODEL = Path(os.environ.get("MODEL", "models/model.joblib"))

Image = Annotated[list[Annotated[float, Field(ge=0, le=16)]], Field(min_length=64, max_length=64)]
"""8 x 8 pixels, row by row, from 0 (paper) to 16 (ink)."""


class Question(BaseModel):
    images: list[Image] = Field(min_length=1, max_length=1000)


class Answer(BaseModel):
    digits: list[int]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    if not MODEL.is_file():
        raise SystemExit(f"no model at {MODEL}: run 'mlbox train' in sklearn-train and copy its outputs/model.joblib there")
    app.state.model = joblib.load(MODEL)  # a pickle: only load models you trust
    yield


app = FastAPI(title="digits", lifespan=lifespan)


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok", "model": MODEL.name}


@app.post("/predict")
def predict(question: Question, request: Request) -> Answer:
    return Answer(digits=request.app.state.model.predict(question.images).tolist())
