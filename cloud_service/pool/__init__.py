"""Several engine processes behind one service, after P/D-Serve (arXiv 2408.08147).

```
backend.py ─ decides who asks whom ─▶ placement.py, roles.py, families.py, retry.py     (pure)
   │ └─ assignment.py   one generation: waiting, offered, running, on its way from one instance to another
   └─ instance.py ─ replaces what has died, by restarts.py (pure)
         └─ process.py ═ frames.py over pipes ═▶ worker.py: an engine, its scheduler, no queue
                                                    └─ shared_kv.py ─ one buffer ─▶ another worker
```
"""
