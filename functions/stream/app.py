"""The stream function: uvicorn behind the AWS Lambda Web Adapter."""

import gc

gc.disable()  # what an import makes stays: there is nothing to find in it

from tailrace.backend import Backend  # noqa: E402
from tailrace.http.server import serve  # noqa: E402
from tailrace.http.stream_app import create_stream_app  # noqa: E402

app = create_stream_app(Backend())
gc.freeze()
gc.enable()

if __name__ == "__main__":
    serve(app)
