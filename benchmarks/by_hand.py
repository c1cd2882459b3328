"""Two classifiers that a user writes, scored on five folds: python -m benchmarks.by_hand ROWS.jsonl MODEL

TF-IDF and the mean states of the model's layer at a third of its depth, each under scikit-learn's logistic
regression with C by cross-validation. It is what `weft learn` is timed beside, and knows nothing of weft.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH = 32


def main() -> None:
    """Print the accuracy of both."""
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text("utf-8").splitlines()]
    texts, answers = [row["text"] for row in rows], [row["answer"] for row in rows]
    warnings.simplefilter("ignore", ConvergenceWarning)
    words = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), regression())
    states = make_pipeline(StandardScaler(), regression())
    for name, way, x in (("TF-IDF", words, texts), ("features", states, features(texts, sys.argv[2]))):
        print(name, round(100 * cross_val_score(way, x, answers, cv=5).mean(), 1))


def regression() -> GridSearchCV:
    """With the strengths that weft tries."""
    return GridSearchCV(LogisticRegression(max_iter=2000), {"C": [0.1, 1.0, 10.0, 100.0]}, cv=5)


@torch.no_grad()
def features(texts: list[str], folder: str) -> np.ndarray:
    """Mean states `[N, D]`, texts of like length together."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    layer = round(model.config.num_hidden_layers / 3)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found = np.zeros((len(texts), model.config.hidden_size), np.float32)
    for start in range(0, len(texts), BATCH):
        places = order[start : start + BATCH]
        batch = tokenizer([texts[i] for i in places], padding=True, return_tensors="pt")
        states = model.model(**batch, output_hidden_states=True).hidden_states[layer]
        mask = batch["attention_mask"][..., None]
        found[places] = ((states * mask).sum(1) / mask.sum(1)).numpy()
    return found


if __name__ == "__main__":
    main()
