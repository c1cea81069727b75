from . import doctor as doctor
from . import figures as figures
from . import notebooks as notebooks
from .exercises import check as check
from .exercises import live as live
