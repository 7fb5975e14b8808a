import numpy as np
import numpy.typing as npt

def float_array(line: npt.NDArray[np.float64], /) -> bytes: ...
