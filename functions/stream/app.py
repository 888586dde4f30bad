"""The stream function: uvicorn behind the AWS Lambda Web Adapter."""

from tailrace.backend import Backend
from tailrace.http.server import serve
from tailrace.http.stream_app import create_stream_app

app = create_stream_app(Backend())

if __name__ == "__main__":
    serve(app)
