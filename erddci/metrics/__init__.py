"""How alike two images are: PSNR, SSIM, MSE and LPIPS."""

from erddci.metrics.pixel import MEASURES, compare, mse, psnr, ssim

__all__ = ["MEASURES", "compare", "mse", "psnr", "ssim"]
