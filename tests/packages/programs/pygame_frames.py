# SPDX-License-Identifier: MIT
"""pygame: SDL without a display, events that wait in its queue, surfaces, a clock, a timer's thread.

live: rounds=60 needs=pygame environment=SDL_VIDEODRIVER=dummy
"""
import sys

import pygame
import pyheap


def main():
    rounds = int(sys.argv[1])
    pygame.display.init()
    screen = pygame.display.set_mode((64, 48))
    sprite = pygame.Surface((8, 8), pygame.SRCALPHA)
    clock = pygame.time.Clock()
    tick = pygame.event.custom_type()
    pygame.time.set_timer(tick, 5)
    x = 0
    for r in range(rounds):
        pygame.event.post(pygame.event.Event(pygame.USEREVENT, code=r))
        sprite.fill((r % 256, 200, 30, 128))
        screen.fill((0, 0, 0))
        screen.blit(sprite, (x, 10))
        pyheap.epoch()
        codes = [event.code for event in pygame.event.get(pygame.USEREVENT)]
        assert codes == [r], codes
        x = (x + 3) % 56
        pygame.display.flip()
        clock.tick(500)
        assert screen.get_at((1, 1))[:3] == (0, 0, 0)
        if r % 10 == 0:
            while pygame.event.wait(10000).type != tick:
                pass
            print(r, screen.get_at(((x - 3) % 56, 12)), sum(pygame.image.tobytes(screen, "RGB")))
    pygame.quit()


main()
