"""From nothing to the end of the first optimizer step with PEFT, as short as a script for it gets.

    start_peft.py MODEL DATA DTYPE THREADS      prints the seconds since 1970 at that moment
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from twin import PeftTrainer, load_base, padded_loss, peft, read_documents, torch, transformers

MAX_LENGTH = 64  # as in bench/start


def main() -> None:
    model, data, dtype, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(model)
    documents = read_documents(tokenizer, Path(data), MAX_LENGTH)
    base = load_base(model, getattr(torch, dtype))
    lora = peft.LoraConfig(
        r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    PeftTrainer(peft.get_peft_model(base, lora), 1.0, padded_loss).step([documents], 2e-4)
    print(time.time())


if __name__ == "__main__":
    main()
