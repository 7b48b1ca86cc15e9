"""`pd-chat`: a desktop chat client on the SDK, which shows who said what, when, and why.

history/     conversations in SQLite                                   (no Qt)
answering/   models, cloud process and link behind one HybridClient    (no Qt)
viewmodel/   what is on the screen and what a click means              (no Qt, no I/O of its own)
ui/          widgets: they draw a view-model and call it               (no I/O)
"""
