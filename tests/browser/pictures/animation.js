// An animated PNG (https://www.w3.org/TR/png-3/#apng-frame-based-animation) of screenshots: of each frame only what changed.

import { crc32, deflateSync, inflateSync } from 'node:zlib';

const SIGNATURE = Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]);
const CHANNELS = { 2: 3, 6: 4 }; // of the colour types that Chromium writes

/**
 * Return the animation.
 *
 * @param {{png: Buffer, milliseconds: number}[]} frames  screenshots of one size, and how long each is shown
 */
export function animated(frames) {
    const images = frames.map(({ png, milliseconds }) => ({ ...decode(png), milliseconds }));
    const shown = [];
    for (const image of images) {
        const before = shown.at(-1);
        const box = before ? changed(before.image, image) : { x: 0, y: 0, width: image.width, height: image.height };
        if (box) shown.push({ image, box, milliseconds: image.milliseconds });
        else before.milliseconds += image.milliseconds;
    }
    const [{ width, height }] = images;
    const parts = [SIGNATURE, chunk('IHDR', numbers([width, 4], [height, 4], [8, 1], [2, 1], [0, 1], [0, 1], [0, 1]))];
    parts.push(chunk('acTL', numbers([shown.length, 4], [0, 4])));
    let sequence = 0;
    shown.forEach(({ image, box, milliseconds }, index) => {
        parts.push(chunk('fcTL', numbers([sequence++, 4], [box.width, 4], [box.height, 4], [box.x, 4], [box.y, 4],
            [Math.min(milliseconds, 65_535), 2], [1000, 2], [0, 1], [0, 1])));
        const data = deflateSync(filtered(image, box), { level: 9 });
        parts.push(index ? chunk('fdAT', Buffer.concat([numbers([sequence++, 4]), data])) : chunk('IDAT', data));
    });
    return Buffer.concat([...parts, chunk('IEND', Buffer.alloc(0))]);
}

/** The pixels of a PNG, three bytes each. */
export function decode(png) {
    let header;
    const data = [];
    for (let at = SIGNATURE.length; at < png.length;) {
        const length = png.readUInt32BE(at);
        const name = png.toString('latin1', at + 4, at + 8);
        const body = png.subarray(at + 8, at + 8 + length);
        if (name === 'IHDR') header = body;
        else if (name === 'IDAT') data.push(body);
        at += length + 12;
    }
    const [width, height, depth, kind] = [header.readUInt32BE(0), header.readUInt32BE(4), header[8], header[9]];
    const channels = CHANNELS[kind];
    if (depth !== 8 || channels === undefined || header[12] !== 0) throw new Error('A PNG of another kind than Chromium writes.');
    const raw = inflateSync(Buffer.concat(data));
    const stride = width * channels;
    const bytes = Buffer.alloc(stride * height);
    for (let y = 0; y < height; y += 1) {
        const filter = raw[y * (stride + 1)];
        for (let x = 0; x < stride; x += 1) {
            const left = x < channels ? 0 : bytes[y * stride + x - channels];
            const above = y ? bytes[(y - 1) * stride + x] : 0;
            const corner = y && x >= channels ? bytes[(y - 1) * stride + x - channels] : 0;
            const guess = [0, left, above, (left + above) >> 1, paeth(left, above, corner)][filter];
            bytes[y * stride + x] = raw[y * (stride + 1) + 1 + x] + guess;
        }
    }
    const pixels = Buffer.alloc(width * height * 3);
    for (let index = 0; index < width * height; index += 1) bytes.copy(pixels, index * 3, index * channels, index * channels + 3);
    return { width, height, pixels };
}

/** The smallest box outside which two images are the same; null if they are the same. */
function changed(before, after) {
    const { width, height } = after;
    const isSameRow = (y) => before.pixels.compare(after.pixels, y * width * 3, (y + 1) * width * 3, y * width * 3, (y + 1) * width * 3) === 0;
    let [top, bottom] = [0, height];
    while (top < bottom && isSameRow(top)) top += 1;
    if (top === bottom) return null;
    while (isSameRow(bottom - 1)) bottom -= 1;
    let [left, right] = [width, 0];
    for (let y = top; y < bottom; y += 1) {
        for (let x = 0; x < width; x += 1) {
            const at = (y * width + x) * 3;
            if (before.pixels.compare(after.pixels, at, at + 3, at, at + 3) !== 0) {
                left = Math.min(left, x);
                right = Math.max(right, x + 1);
            }
        }
    }
    return { x: left, y: top, width: right - left, height: bottom - top };
}

/** The rows of a box, each by the filter whose differences are least. */
function filtered({ width, pixels }, box) {
    const stride = box.width * 3;
    const rows = [];
    let above = Buffer.alloc(stride);
    for (let y = box.y; y < box.y + box.height; y += 1) {
        const row = pixels.subarray((y * width + box.x) * 3, (y * width + box.x) * 3 + stride);
        const guesses = [
            () => 0,
            (x) => (x < 3 ? 0 : row[x - 3]),
            (x) => above[x],
            null,
            (x) => paeth(x < 3 ? 0 : row[x - 3], above[x], x < 3 ? 0 : above[x - 3]),
        ];
        let best = null;
        guesses.forEach((guess, filter) => {
            if (!guess) return;
            const line = Buffer.alloc(stride + 1, filter, 0, 1);
            line[0] = filter;
            let sum = 0;
            for (let x = 0; x < stride; x += 1) {
                line[x + 1] = row[x] - guess(x);
                sum += Math.min(line[x + 1], 256 - line[x + 1]);
            }
            if (!best || sum < best.sum) best = { line, sum };
        });
        rows.push(best.line);
        above = row;
    }
    return Buffer.concat(rows);
}

function paeth(left, above, corner) {
    const guess = left + above - corner;
    const [a, b, c] = [Math.abs(guess - left), Math.abs(guess - above), Math.abs(guess - corner)];
    return a <= b && a <= c ? left : b <= c ? above : corner;
}

function numbers(...values) {
    return Buffer.concat(values.map(([value, size]) => {
        const bytes = Buffer.alloc(size);
        bytes.writeUIntBE(value, 0, size);
        return bytes;
    }));
}

function chunk(name, body) {
    const named = Buffer.concat([Buffer.from(name, 'latin1'), body]);
    return Buffer.concat([numbers([body.length, 4]), named, numbers([crc32(named), 4])]);
}
