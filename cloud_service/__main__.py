"""`python -m cloud_service` is `pd-cloud`."""

import sys

from cloud_service.cli import main

sys.exit(main())
