from test_model_training import *
import time
def test_x(make_backbone):
  for name in ("t5","llama-prefix"):
   for lr in (.1,.5,1.):
    for steps in (60,400,):
     backbone, lines = make_backbone(name), []
     start = drawn(P, backbone.width, scale=prompt_scale_of(backbone)).repeat(2, 1, 1)
     model = prompt_tuning.build(backbone, start, tuple(ROWS))
     batches = EpochBatches(tuple(EncodedTask(task, rows) for task, rows in ROWS.items()), 24, seed=0)
     settings = optim({"prompt": lr * prompt_scale(model)}, steps, batch_size=24)
     fit(model, batches, lm_loss, settings, hooks=Hooks(log=lines.append))
     sources = [row.source for row in answer_rows(YES, 8, seed=9)]
     r=[]
     for k in range(2):
        scores = model.backbone.score(model.begin(sources, [k] * 8), [(3,1),(4,1)])
        r.append(scores.argmax(1).tolist())
     print(name, lr, steps, lines[0]["loss"], lines[-1]["loss"], r)
def test_y(backbones, suffix):
    from weft.backbone.text_cache import TextCache
    a,b=(3,4,5),(6,7,8,9,10,11)
    for S in (3,7,12):
      a=tuple(range(3,3+S)); b=tuple(range(9,9+S+4))
      x=TextCache(suffix.lm,1<<20).gather([a,b]); y=TextCache(suffix.lm,1<<20).gather([a])
      print(suffix.name, S, max((k[:1,:,-S:]-q).abs().max().item() for (k,_),(q,_) in zip(x,y)))
