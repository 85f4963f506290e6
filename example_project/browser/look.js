// How many pixels the page is too wide, and the text of less than 4.5 to 1 against what is behind it, as WCAG 2 counts
// contrast. Of the text only that in what the selector names.
(within) => {
  const numbers = (color) => color.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let part = element; part; part = part.parentElement) {
      const color = numbers(getComputedStyle(part).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const root = document.documentElement;
  const faint = [];
  for (const element of document.querySelectorAll(`${within} *`)) {
    const text = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data.trim()).join("");
    if (!text || element.closest("noscript") || !element.checkVisibility()) continue;
    const { color, fill } = getComputedStyle(element);
    const ink = element instanceof SVGElement ? fill : color;
    const [one, other] = [light(numbers(ink)), light(behind(element))].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (other + 0.05);
    if (contrast < 4.5) faint.push(`${element.localName}.${element.getAttribute("class") ?? ""} ${contrast.toFixed(2)}: ${text.slice(0, 40)}`);
  }
  return [root.scrollWidth - root.clientWidth, faint];
}
