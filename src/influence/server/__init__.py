"""The model over HTTP, in the protocols that clients already speak.

    app.py          requests to endpoints; every error in its protocol's shape
    service.py      what the endpoints share: prompts, parameters, submitting, one request's events
    streaming.py    events as a response; a client that leaves cancels its request
    *_api.py        one protocol each
    connections.py  what a socket may do before a request is there
    life.py         the port, readiness, signals, draining

It knows the generator, text and facts of the model; no tensors, no files.
"""
