"""Runs, source prompts and banks on the Hugging Face hub. `docs/hub.md` says what a repository holds.

weft.push_to_hub("runs/adapt-mpt-banking-s0-3f2a91c0", "me/banking")
weft.from_pretrained("me/banking").predict([{"text": "My card was swallowed."}])
weft.bank.open(weft.pull("me/my-bank", "my-bank"))
"""

from weft.interop.hub.sharing import from_pretrained, pull, push_to_hub, save_pretrained

__all__ = ["from_pretrained", "pull", "push_to_hub", "save_pretrained"]
