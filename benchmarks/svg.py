# SPDX-License-Identifier: MIT
"""svg - line plots with linear or logarithmic axes, as SVG text, without dependencies"""
import html
import math

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 76, 190, 44, 58
COLOURS = ["#0b6e99", "#d9480f", "#5c7c2a", "#7048a8", "#8a6d00", "#555555"]


def number(value):
    """A tick's label: short, without exponents."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:g}{suffix}"
    return f"{value:g}"


class Axis:
    """Maps values to positions, and knows its ticks."""

    def __init__(self, values, low, high, logarithmic):
        self.low_pixel, self.high_pixel, self.logarithmic = low, high, logarithmic
        if logarithmic:
            positive = [v for v in values if v > 0]
            self.low = 10 ** math.floor(math.log10(min(positive)))
            self.high = 10 ** math.ceil(math.log10(max(positive) * 1.01))
        else:
            self.low = 0
            step = 10 ** math.floor(math.log10(max(values)))
            self.high = math.ceil(max(values) * 1.05 / step) * step

    def at(self, value):
        if self.logarithmic:
            value = max(value, self.low)
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.low_pixel + part * (self.high_pixel - self.low_pixel)

    def ticks(self):
        if self.logarithmic:
            n = round(math.log10(self.high / self.low))
            return [self.low * 10**i for i in range(n + 1)]
        step = 10 ** math.floor(math.log10(self.high))
        if self.high / step < 4:
            step /= 4 if self.high / step < 2 else 2
        return [i * step for i in range(round(self.high / step) + 1)]


def plot(title, x_label, y_label, series, log_x=False, log_y=False, x_ticks=None):
    """
    SVG of @p series: name -> list of (x, y) or (x, y, least, greatest).
    @p x_ticks: list of (x, label) instead of the axis's own.
    """
    points = [p for line in series.values() for p in line]
    x = Axis([p[0] for p in points], LEFT, WIDTH - RIGHT, log_x)
    y = Axis([v for p in points for v in p[1:]], HEIGHT - BOTTOM, TOP, log_y)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           f'font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           f'<text x="{LEFT}" y="24" font-size="15">{html.escape(title)}</text>']

    def text(px, py, words, anchor="middle", extra=""):
        out.append(f'<text x="{px:.1f}" y="{py:.1f}" text-anchor="{anchor}" fill="#333"'
                   f'{extra}>{html.escape(words)}</text>')

    for value in y.ticks():
        py = y.at(value)
        out.append(f'<path d="M{LEFT} {py:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        text(LEFT - 8, py + 4, number(value), "end")
    for value, label in x_ticks or [(v, number(v)) for v in x.ticks()]:
        px = x.at(value)
        out.append(f'<path d="M{px:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eee"/>')
        text(px, HEIGHT - BOTTOM + 18, label)
    out.append(f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" '
               'stroke="#333"/>')
    text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, x_label)
    middle = (TOP + HEIGHT - BOTTOM) / 2
    text(18, middle, y_label, extra=f' transform="rotate(-90 18 {middle:.1f})"')

    for i, (name, line) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(f"{x.at(p[0]):.1f},{y.at(p[1]):.1f}" for p in line)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" '
                   'stroke-width="2"/>')
        for p in line:
            out.append(f'<circle cx="{x.at(p[0]):.1f}" cy="{y.at(p[1]):.1f}" r="3" '
                       f'fill="{colour}"/>')
            if len(p) == 4:
                out.append(f'<path d="M{x.at(p[0]):.1f} {y.at(p[2]):.1f}V{y.at(p[3]):.1f}" '
                           f'stroke="{colour}"/>')
        at = TOP + 10 + 20 * i
        out.append(f'<path d="M{WIDTH - RIGHT + 12} {at}h18" stroke="{colour}" '
                   'stroke-width="2"/>')
        text(WIDTH - RIGHT + 36, at + 4, name, "start")
    out.append("</svg>")
    return "\n".join(out) + "\n"
