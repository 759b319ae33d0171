"""Log likelihoods as lm-eval's local-completions measures them, as JSON. Arguments: the URL, JSON of [context, text] pairs."""

from __future__ import annotations

import json
import sys

from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI


def main(url: str, pairs: list[list[str]]) -> None:
    model = LocalCompletionsAPI(
        base_url=f"{url}/v1/completions",
        model="demo",
        tokenizer_backend="remote",
        tokenized_requests=True,
        batch_size=2,
        max_retries=1,
    )
    requests = [Instance("loglikelihood", {}, tuple(pair), number) for number, pair in enumerate(pairs)]
    scores = model.loglikelihood(requests, disable_tqdm=True)
    contexts = [[model.tok_encode(part) for part in pair] for pair in pairs]
    print(json.dumps({"scores": scores, "tokens": contexts}))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
