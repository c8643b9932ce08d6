# SPDX-License-Identifier: MIT
"""VTK: a pipeline of C++ filters that is brought up to date, whose observers are Python's, and whose
arrays share NumPy's memory.

live: rounds=25 needs=vtk,numpy
"""
import sys

import numpy as np
import pyheap
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkImageData
from vtkmodules.vtkFiltersCore import vtkContourFilter, vtkMassProperties, vtkTriangleFilter


def main():
    rounds = int(sys.argv[1])
    size = 24
    axis = np.linspace(-1, 1, size)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    values = np.ascontiguousarray((x**2 + y**2 + z**2).ravel())
    image = vtkImageData()
    image.SetDimensions(size, size, size)
    image.SetSpacing(2 / (size - 1), 2 / (size - 1), 2 / (size - 1))
    image.GetPointData().SetScalars(numpy_to_vtk(values, deep=False))
    contour, triangles, mass = vtkContourFilter(), vtkTriangleFilter(), vtkMassProperties()
    contour.SetInputData(image)
    triangles.SetInputConnection(contour.GetOutputPort())
    mass.SetInputConnection(triangles.GetOutputPort())
    seen = []

    def watch(_filter, event):
        seen.append(event)
        pyheap.epoch()

    contour.AddObserver("EndEvent", watch)
    for r in range(rounds):
        contour.SetValue(0, 0.1 + r % 9 / 20)
        values[r % values.size] += 1e-3
        image.GetPointData().GetScalars().Modified()
        mass.Update()
        points = vtk_to_numpy(contour.GetOutput().GetPoints().GetData())
        assert len(seen) == r + 1 and np.isfinite(points).all()
        if r % 10 == 0:
            print(r, len(points), f"{mass.GetVolume():.6f}", f"{mass.GetSurfaceArea():.5f}")


main()
