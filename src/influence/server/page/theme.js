// Light or dark, set before the first pixel: a plain script, because modules come later.
// Without a choice the system's holds.
(() => {
  const theme = localStorage.getItem("influence.theme");
  if (theme === "light" || theme === "dark") {
    document.documentElement.dataset.theme = theme;
  }
})();
