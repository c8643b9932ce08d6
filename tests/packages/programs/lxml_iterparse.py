# SPDX-License-Identifier: MIT
"""lxml: iterparse half-way through a file that is open, a pull parser fed in pieces, XPath and a
stylesheet with a function in Python.

live: rounds=40 needs=lxml
"""
import sys

import pyheap
from lxml import etree

STYLE = etree.XML("""<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform"
  xmlns:py="py"><xsl:template match="/"><out><xsl:for-each select="//item[@n mod 3 = 0]">
  <v><xsl:value-of select="py:twice(@n)"/></v></xsl:for-each></out></xsl:template>
  </xsl:stylesheet>""")


def main():
    rounds = int(sys.argv[1])
    with open("big.xml", "w") as out:
        out.write("<list>\n")
        for n in range(rounds * 20):
            out.write(f'<item n="{n}"><name>item {n}</name></item>\n')
        out.write("</list>\n")
    inside = 0

    def twice(context, values):
        nonlocal inside
        inside += 1
        if inside == 1:
            pyheap.epoch("inside a stylesheet")
        return int(values[0]) * 2

    style = etree.XSLT(STYLE, extensions={("py", "twice"): twice})
    puller = etree.XMLPullParser(events=("end",))
    puller.feed("<all>")
    total = 0
    with open("big.xml", "rb") as file:
        items = etree.iterparse(file, tag="item")
        for r in range(rounds):
            small = etree.Element("small")
            for _ in range(20):
                _, item = next(items)
                small.append(etree.fromstring(etree.tostring(item)))
                total += int(item.get("n"))
                item.clear()
            inside = 0
            puller.feed(f"<part n='{r}'><te")
            result = style(small)
            puller.feed("xt/></part>")
            assert [e.get("n") for _, e in puller.read_events() if e.tag == "part"] == [str(r)]
            numbers = [int(n) for n in small.xpath("item/@n")]
            assert numbers == list(range(r * 20, r * 20 + 20))
            assert [int(v) for v in result.xpath("//v/text()")] == [
                2 * n for n in numbers if n % 3 == 0]
            if r % 10 == 0:
                print(r, total, small[0].findtext("name"))
    puller.feed("</all>")
    print(total, len(puller.close()))


main()
