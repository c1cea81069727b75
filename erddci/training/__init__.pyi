from . import dataset as dataset
from . import export as export
from . import train as train
from . import world as world
