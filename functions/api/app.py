"""The buffered function: the whole FastAPI application through Mangum."""

from mangum import Mangum
from tailrace.backend import Backend
from tailrace.http.api_app import create_api_app

app = create_api_app(Backend())

# Mangum would run the lifespan around every single request, and close the connections each time.
handler = Mangum(app, lifespan="off")
