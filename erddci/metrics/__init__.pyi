from . import lpips as lpips
from . import lpips_weights as lpips_weights
from .pixel import MEASURES as MEASURES
from .pixel import compare as compare
from .pixel import mse as mse
from .pixel import psnr as psnr
from .pixel import ssim as ssim
